// `npm test`: sets up what is missing, runs every ring of tests, and closes with the count of all of them.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { z } from 'zod';

import { debianPackages, neighboursAvailable } from '../test/support/neighbours/available.ts';

const report = z.object({
  numPassedTests: z.number(),
  numFailedTests: z.number(),
  numPendingTests: z.number(),
  numFailedTestSuites: z.number(),
  testResults: z.array(
    z.object({
      status: z.string(),
      name: z.string(),
      assertionResults: z.array(z.object({ status: z.string() })),
    }),
  ),
});

interface Count {
  passed: number;
  failed: number;
  skipped: number;
}

const total: Count = { passed: 0, failed: 0, skipped: 0 };
const folder = mkdtempSync(join(tmpdir(), 'postern-test-'));

function step(title: string, command: string, args: readonly string[]): boolean {
  console.log(`\n== ${title}`);
  return spawnSync(command, args, { stdio: 'inherit' }).status === 0;
}

function ring(name: string, project: string): void {
  const file = join(folder, `${project}.json`);
  const args = [
    'run',
    '--project',
    project,
    '--reporter=default',
    '--reporter=json',
    `--outputFile.json=${file}`,
  ];
  const ok = step(`ring: ${name}`, 'vitest', args);
  const { numPassedTests, numFailedTests, numPendingTests, testResults } = report.parse(
    JSON.parse(readFileSync(file, 'utf8')),
  );
  // A file that can't even be loaded has no tests to count; it is one failure all the same.
  const broken = testResults.filter(
    ({ status, assertionResults }) => status === 'failed' && assertionResults.length === 0,
  ).length;
  total.passed += numPassedTests;
  total.failed += numFailedTests + broken;
  total.skipped += numPendingTests;
  if (!ok && numFailedTests + broken === 0) total.failed += 1;
}

try {
  if (!step('build', 'npm', ['run', '--silent', 'build'])) {
    total.failed += 1;
  } else {
    ring('bytes, checks, transcripts, documents', 'unit');
    console.log('\n== Debian packages of the real neighbours');
    const setup = spawnSync('bash', ['scripts/debian.sh', ...debianPackages()], {
      stdio: ['ignore', 'inherit', 'pipe'],
    });
    const available = neighboursAvailable();
    if (setup.status !== 0) {
      console.log(`ring skipped: real neighbours: ${setup.stderr.toString('utf8').trim()}`);
    } else if (!available.ok) {
      console.log(`ring skipped: real neighbours: ${available.reason}`);
    } else {
      ring('real neighbours', 'neighbours');
    }
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
if (total.skipped > 0)
  console.log(`\n${total.skipped} tests were skipped; their names and reasons stand above`);
console.log(`\n${total.passed} passed, ${total.failed} failed`);
process.exit(total.failed === 0 ? 0 : 1);
