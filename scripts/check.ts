// `npm run check`: everything that must be green before a commit. Stops at the first step that fails.
import { spawnSync } from 'node:child_process';

const STEPS: readonly (readonly [name: string, command: string, ...args: string[]])[] = [
  ['format', 'prettier', '--check', '--cache', '--log-level=warn', '.'],
  ['types', 'tsc', '--noEmit', '-p', '.'],
  ['lint', 'oxlint', '--quiet'],
  ['unused', 'knip'],
  ['build', 'npm', 'run', '--silent', 'build'],
  ['generated files', process.execPath, 'scripts/generate.ts', '--check'],
  ['unit tests', 'vitest', 'run', '--project', 'unit', '--reporter=dot'],
];

for (const [name, command, ...args] of STEPS) {
  const begun = performance.now();
  const { status } = spawnSync(command, args, { stdio: 'inherit' });
  const seconds = ((performance.now() - begun) / 1000).toFixed(1);
  if (status !== 0) {
    console.error(`check: ${name} failed after ${seconds} s (${command} ${args.join(' ')})`);
    process.exit(1);
  }
  console.log(`check: ${name} ok, ${seconds} s`);
}
