import { spawn } from 'node:child_process';
import { chmod, copyFile, mkdir, mkdtemp, realpath, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

import { afterEach, beforeEach, expect, test } from 'vitest';

// bin/postern, copied into installations of several kinds.

const LAUNCHER = join(import.meta.dirname, '../../../bin/postern');
const SHIPPED = `node-linux-${process.arch}/bin/node`;
/** What the script itself needs of the system. */
const TOOLS = ['sh', 'dirname', 'readlink', 'uname'];

let folder: string;
let root: string;
let tools: string;

beforeEach(async () => {
  folder = await realpath(await mkdtemp(join(tmpdir(), 'postern launcher ')));
  root = join(folder, 'lib', 'postern');
  await mkdir(join(root, 'bin'), { recursive: true });
  await copyFile(LAUNCHER, join(root, 'bin/postern'));
  await put(
    join(root, 'dist/cli/main.js'),
    'process.stdout.write(JSON.stringify({ pid: process.pid, args: process.argv.slice(2), node: process.argv0 }))',
  );
  tools = join(folder, 'tools');
  await mkdir(tools);
  for (const tool of TOOLS) await symlink(await find(tool), join(tools, tool));
});

afterEach(() => rm(folder, { recursive: true }));

async function find(tool: string): Promise<string> {
  for (const place of ['/usr/bin', '/bin']) {
    try {
      return await realpath(join(place, tool));
    } catch {
      continue; // looked for in the next one
    }
  }
  throw new Error(`no ${tool} on this machine`);
}

async function put(path: string, text: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, text);
}

/** A Node.js in the given place: the one that runs this test, or one that only tells its version. */
async function putNode(path: string, version: string | null): Promise<void> {
  if (version === null) await put(path, `#!/bin/sh\nexec "${process.execPath}" "$@"\n`);
  else
    await put(
      path,
      `#!/bin/sh\n[ "$1" = --version ] && echo ${version} && exit\nexec "${process.execPath}" "$@"\n`,
    );
  await chmod(path, 0o755);
}

interface Run {
  readonly pid: number | undefined;
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

function launch(path = join(root, 'bin/postern'), args: readonly string[] = []): Promise<Run> {
  return new Promise((resolve, reject) => {
    const child = spawn(path, args, { cwd: '/', env: { PATH: tools } });
    let stdout = '';
    let stderr = '';
    child.stdout.on('data', (chunk) => (stdout += String(chunk)));
    child.stderr.on('data', (chunk) => (stderr += String(chunk)));
    child.on('error', reject);
    child.on('close', (code) => resolve({ pid: child.pid, code, stdout, stderr }));
  });
}

test.runIf(['x64', 'arm64'].includes(process.arch))(
  'the shipped Node.js comes first, and the process stays the same one',
  async () => {
    await putNode(join(root, 'node_modules', SHIPPED), null);
    await putNode(join(tools, 'node'), 'v20.20.2');
    const { pid, code, stdout, stderr } = await launch(undefined, ['run', 'a b', '', '*']);
    expect([code, stderr]).toEqual([0, '']);
    expect(JSON.parse(stdout)).toMatchObject({ pid, args: ['run', 'a b', '', '*'] });
  },
);

test.runIf(['x64', 'arm64'].includes(process.arch))(
  'installed as a package, the shipped Node.js is its neighbour; links lead there',
  async () => {
    await putNode(join(folder, 'lib', SHIPPED), null);
    const first = join(folder, 'first');
    const second = join(folder, 'usr bin', 'postern');
    await symlink('lib/postern/bin/postern', first);
    await mkdir(dirname(second));
    await symlink(first, second);
    const { code, stderr } = await launch(second);
    expect([code, stderr]).toEqual([0, '']);
  },
);

test.each(['v24.0.0', 'v26.3.1', 'v100.0.0'])(
  "without it, the system's Node.js does when it is %s",
  async (version) => {
    await putNode(join(tools, 'node'), version);
    const { code, stdout } = await launch();
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ args: [] });
  },
);

test.each(['v23.11.0', 'v20.20.2', 'v8.0.0', 'nonsense'])('and does not when it is %s', async (version) => {
  await putNode(join(tools, 'node'), version);
  const { code, stdout, stderr } = await launch();
  expect([code, stdout]).toEqual([69, '']);
  expect(stderr).toBe(
    `postern: Node.js 24 or newer is needed, and ${join(tools, 'node')} is ${version}; run: (cd ${root} && npm ci)\n`,
  );
});

test('without any Node.js it says what to do', async () => {
  const { code, stderr } = await launch();
  expect(code).toBe(69);
  expect(stderr).toBe(
    `postern: Node.js 24 or newer is needed, and there is no node in PATH; run: (cd ${root} && npm ci)\n`,
  );
});

test('before it is built it says how', async () => {
  await rm(join(root, 'dist'), { recursive: true });
  const { code, stderr } = await launch();
  expect(code).toBe(69);
  expect(stderr).toBe(
    `postern: ${root}/dist/cli/main.js is missing; build it first: (cd ${root} && npm ci && npm run build)\n`,
  );
});

test('links that lead in a circle end', async () => {
  const circle = join(folder, 'circle');
  await symlink(circle, circle);
  const { code, stderr } = await new Promise<Run>((resolve) => {
    const child = spawn('sh', ['-c', `. "$1"`, circle, LAUNCHER], { env: { PATH: tools } });
    let text = '';
    child.stderr.on('data', (chunk) => (text += String(chunk)));
    child.on('close', (status) => resolve({ pid: child.pid, code: status, stdout: '', stderr: text }));
  });
  expect(code).toBe(69);
  expect(stderr).toBe(`postern: too many symbolic links at ${circle}\n`);
});
