import { defineConfig } from 'vitest/config';

// Rings of tests: bytes and checks (unit, wire), transcripts against the in-process daemons, generated documents, and real neighbours.
export default defineConfig({
  test: {
    // Tests wait more than they compute; vitest's own choice leaves a core idle on a machine with two.
    maxWorkers: 3,
    projects: [
      {
        test: {
          name: 'unit',
          include: ['test/{unit,wire,conformance,transcripts,docs}/**/*.test.ts'],
          testTimeout: 20_000,
          // A process takes many files: starting one for each takes longer than most files do. No test may leave anything behind.
          isolate: false,
        },
      },
      {
        test: {
          name: 'neighbours',
          include: ['test/integration/**/*.test.ts'],
          testTimeout: 180_000,
          hookTimeout: 180_000,
        },
      },
    ],
  },
});
