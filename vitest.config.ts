import { defineConfig } from 'vitest/config';

// Rings of tests: bytes and checks (unit, wire), transcripts against the in-process daemons, generated documents, and real neighbours.
export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: 'unit',
          include: ['test/{unit,wire,conformance,transcripts,docs}/**/*.test.ts'],
          testTimeout: 20_000,
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
