import { fork, type ChildProcess } from 'node:child_process';
import { availableParallelism } from 'node:os';

import type { Config } from '../config/config.ts';
import { TurnStream } from '../runtime/turn-stream.ts';
import type { DaemonName } from './arguments.ts';

/** Daemons whose connections have nothing to do with each other. policyd joins the requests of one message, which come on several. */
export type WorkerDaemon = Exclude<DaemonName, 'policyd'>;

export function workersOf({ file }: Config, name: DaemonName): number {
  if (name === 'policyd') return 1;
  return file[name].workers === 0 ? availableParallelism() : file[name].workers;
}

/**
 * The configuration as one of several workers has it: what is counted for the whole daemon, connections and what the scanners are given
 * at once, is divided among them.
 */
export function shareOf(config: Config, name: WorkerDaemon): Config {
  const { file } = config;
  const count = workersOf(config, name);
  const part = (all: number): number => Math.max(1, Math.ceil(all / count));
  const shared = <T extends { readonly max_connections: number }>(table: T): T => ({
    ...table,
    max_connections: part(table.max_connections),
  });
  return Object.freeze({
    ...config,
    file: Object.freeze({
      ...file,
      [name]: shared(file[name]),
      spamd: shared(file.spamd),
      rspamd: shared(file.rspamd),
      clamd: shared(file.clamd),
    }),
  });
}

/** Beside this file, as it is: TypeScript or built. */
const ENTRY = new URL(
  import.meta.url.endsWith('.ts') ? './worker-main.ts' : './worker-main.js',
  import.meta.url,
);

const STDOUT = 1;
const LINE_FEED = 10;

/** What a worker was started for, as its arguments say it. */
export interface WorkerArguments {
  readonly daemon: WorkerDaemon;
  readonly number: number;
  /** --config of the process that started it; null: none. */
  readonly config: string | null;
}

export function startWorker({ daemon, number, config }: WorkerArguments): ChildProcess {
  const args = [daemon, String(number), ...(config === null ? [] : [config])];
  const child = fork(ENTRY, args, { stdio: ['ignore', 'pipe', 'inherit', 'ipc'] });
  const lines = new TurnStream(STDOUT, (error) => {
    process.stderr.write(`postern: log lines of workers are lost: ${error.message}\n`);
  });
  passOn(child, lines);
  return child;
}

/** Whole lines only: several processes write to one log. */
function passOn(child: ChildProcess, lines: TurnStream): void {
  let begun: Buffer[] = [];
  child.stdout?.on('data', (chunk: Buffer) => {
    const end = chunk.lastIndexOf(LINE_FEED) + 1;
    if (end > 0) {
      lines.write(Buffer.concat([...begun, chunk.subarray(0, end)]).toString('utf8'));
      begun = [];
    }
    if (end < chunk.length) begun.push(chunk.subarray(end));
  });
  child.stdout?.on('error', () => {}); // what was written has been read; the end of the process is told elsewhere
  child.stdout?.on('close', () => {
    // The last line of one that was killed.
    if (begun.length > 0) lines.write(`${Buffer.concat(begun).toString('utf8')}\n`);
    lines.flushSync();
  });
}

/** @throws when they are not those of `startWorker` */
export function parseWorker(args: readonly string[]): WorkerArguments {
  const [daemon, number = '', config = null] = args;
  if ((daemon !== 'milter' && daemon !== 'lmtp-filter') || !/^[1-9]\d{0,3}$/.test(number)) {
    throw new Error('workers are started by "postern run"');
  }
  return { daemon, number: Number(number), config };
}
