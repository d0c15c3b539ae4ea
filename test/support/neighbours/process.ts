import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { readFile, readdir, readlink } from 'node:fs/promises';
import { Socket } from 'node:net';
import type { Readable, Writable } from 'node:stream';
import { DEFAULT_DEADLINE_MS, withDeadline } from './deadline.ts';
import { LineLog, type WaitOptions } from './line-log.ts';

const STOP_DEADLINE_MS = 5_000;

/** Debian keeps daemons in sbin, which is not in everybody's PATH. */
const SYSTEM_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

const BIND = 'mount --bind "$0" /etc/resolv.conf && exec "$@"';

export interface LaunchOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** Drops root for good before the program starts. */
  readonly runAs?: { readonly user: string; readonly group: string };
  /** A file that the program sees as /etc/resolv.conf, in a mount namespace of its own. */
  readonly resolvConf?: string;
  /** The network namespace that it runs in (network.ts). */
  readonly network?: string;
}

export interface ProcessOptions extends LaunchOptions {
  readonly name?: string;
  readonly log?: LineLog;
}

export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export interface RunningProcess extends AsyncDisposable {
  readonly pid: number;
  readonly exited: Promise<Exit>;
  output(): string;
  mark(): number;
  waitForLine(pattern: RegExp, options?: WaitOptions): Promise<string>;
  signal(name: NodeJS.Signals): void;
  stop(deadlineMs?: number): Promise<void>;
  /** Ends the process and its children at once; nothing of theirs is worth keeping. */
  kill(): Promise<void>;
}

/** Starts a daemon in the foreground, in a process group of its own. */
export function startProcess(
  command: string,
  args: readonly string[],
  options: ProcessOptions = {},
): RunningProcess {
  const name = options.name ?? command;
  const log = options.log ?? new LineLog(name);
  const child = launch(command, args, options);
  const pid = child.pid;
  const { promise: exited, resolve } = Promise.withResolvers<Exit>();
  const dismissGuard = pid === undefined ? undefined : guard(pid);
  let running = true;
  let gone = false;
  child.stdin.end();
  child.stdout.on('data', (chunk: Buffer) => log.append(chunk));
  child.stderr.on('data', (chunk: Buffer) => log.append(chunk));
  child.once('error', (error) => log.end(error.message));
  child.once('exit', (code, signal) => {
    running = false;
    resolve({ code, signal });
  });
  // Not 'exit': the last words may still be in the pipe then.
  const closed = Promise.withResolvers<void>();
  child.once('close', (code, signal) => {
    log.end(signal ?? `exit code ${String(code)}`);
    closed.resolve();
  });

  async function stop(deadlineMs = STOP_DEADLINE_MS): Promise<void> {
    if (running && pid !== undefined) {
      child.kill('SIGTERM');
      await withDeadline(exited, deadlineMs, `${name} to end`).catch(() => undefined);
    }
    // What the leader left behind, or the leader itself if it did not listen.
    await kill(deadlineMs);
  }

  async function kill(deadlineMs = STOP_DEADLINE_MS): Promise<void> {
    // Once only: later the number may be somebody else's.
    if (pid === undefined || gone) return;
    gone = true;
    dismissGuard?.();
    killGroup(pid);
    await withDeadline(closed.promise, deadlineMs, `${name} to be killed`, () => log.excerpt());
  }

  return {
    get pid() {
      // No number would do: kill(2) takes -1 for every process of the machine.
      if (pid === undefined) throw new Error(`${name} did not start\n${log.excerpt()}`);
      return pid;
    },
    exited,
    output: () => log.text(),
    mark: () => log.mark(),
    waitForLine: (pattern, wait) => log.waitFor(pattern, wait),
    signal(signal) {
      if (running) child.kill(signal);
    },
    stop,
    kill,
    [Symbol.asyncDispose]: () => stop(),
  };
}

export interface RunOptions extends LaunchOptions {
  readonly input?: string | Uint8Array;
  readonly deadlineMs?: number;
}

export interface RunResult {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a program to its end. */
export async function run(
  command: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<RunResult> {
  const child = launch(command, args, options);
  const stdout: Buffer[] = [];
  const stderr: Buffer[] = [];
  child.stdout.on('data', (chunk: Buffer) => stdout.push(chunk));
  child.stderr.on('data', (chunk: Buffer) => stderr.push(chunk));
  let running = true;
  const ended = new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code) => {
      running = false;
      resolve(code);
    });
  });
  // A program that ends before it has read everything is judged by its exit code.
  child.stdin.on('error', () => undefined);
  child.stdin.end(options.input ?? '');
  try {
    const code = await withDeadline(ended, options.deadlineMs ?? DEFAULT_DEADLINE_MS, `${command} to end`);
    return { code, stdout: Buffer.concat(stdout).toString(), stderr: Buffer.concat(stderr).toString() };
  } finally {
    if (running && child.pid !== undefined) killGroup(child.pid);
  }
}

/** Processes (no zombies) with this folder in their command line or environment, or as their working directory. */
export async function processesUsing(folder: string): Promise<number[]> {
  const numbers = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const using = await Promise.all(
    numbers.map(async (number) => {
      const read = (name: string) => readFile(`/proc/${number}/${name}`, 'latin1').catch(() => '');
      const cwd = await readlink(`/proc/${number}/cwd`).catch(() => '');
      const traces = [cwd, await read('cmdline'), await read('environ')].join('\0');
      return traces.includes(folder) && !/^State:\tZ/m.test(await read('status'));
    }),
  );
  return numbers.filter((_, index) => using[index]).map(Number);
}

function launch(
  command: string,
  args: readonly string[],
  options: LaunchOptions,
): ChildProcessByStdio<Writable, Readable, Readable> {
  const namespace =
    options.resolvConf === undefined
      ? []
      : ['unshare', '--mount', '--', 'sh', '-c', BIND, options.resolvConf];
  const user =
    options.runAs === undefined
      ? []
      : ['setpriv', '--reuid', options.runAs.user, '--regid', options.runAs.group, '--init-groups', '--'];
  const network = options.network === undefined ? [] : ['ip', 'netns', 'exec', options.network];
  const [program = '', ...rest] = [...network, ...namespace, ...user, command, ...args];
  return spawn(program, rest, {
    // Ctrl-C goes to us alone: we stop the neighbours in order.
    detached: true,
    cwd: options.cwd ?? '/',
    env: { PATH: SYSTEM_PATH, LC_ALL: 'C', TZ: 'UTC', ...options.env },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
}

/**
 * Kills the group when this process ends, however it ends: the pipe to the guard breaks then. The kernel's own
 * parent-death signal would not do: it is forgotten when a daemon changes its user, as Postfix's master does.
 */
function guard(leader: number): () => void {
  const child = spawn('sh', ['-c', 'read -r _; kill -KILL "-$0"', String(leader)], {
    detached: true,
    cwd: '/',
    env: { PATH: SYSTEM_PATH },
    stdio: ['pipe', 'ignore', 'ignore'],
  });
  child.on('error', () => undefined);
  child.stdin.on('error', () => undefined);
  child.unref();
  if (child.stdin instanceof Socket) child.stdin.unref();
  // SIGKILL, so that it does not live to see the pipe break.
  return () => void child.kill('SIGKILL');
}

function killGroup(leader: number): void {
  try {
    process.kill(-leader, 'SIGKILL');
  } catch {
    // Nobody is left in it.
  }
}
