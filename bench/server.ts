import { spawn, type ChildProcess } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

/** As it is installed: what it starts Node with is measured too. */
export const POSTERN = join(import.meta.dirname, '../bin/postern');

/** A process whose CPU time and memory are watched. */
export class Watched implements AsyncDisposable {
  readonly pid: number;
  readonly #child: ChildProcess;

  private constructor(child: ChildProcess, pid: number) {
    this.#child = child;
    this.pid = pid;
  }

  /** Starts `node ARGS…` and waits for a line on its output that holds `ready`. */
  static start(args: readonly string[], ready: string): Promise<Watched> {
    return Watched.startProgram(process.execPath, args, ready);
  }

  /** One daemon of a built Postern. `profile`: the folder for a .cpuprofile of it; empty: none is made. */
  static startPostern(daemon: string, config: string, profile: string): Promise<Watched> {
    const env =
      profile === '' ? {} : { NODE_OPTIONS: `--cpu-prof --cpu-prof-dir=${JSON.stringify(profile)}` };
    const args = ['run', daemon, '--admin', 'none', '--config', config];
    return Watched.startProgram(POSTERN, args, '"msg":"ready"', env);
  }

  static async startProgram(
    program: string,
    args: readonly string[],
    ready: string,
    env: Readonly<Record<string, string>> = {},
  ): Promise<Watched> {
    const child = spawn(program, args, {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { ...process.env, ...env },
    });
    const up = Promise.withResolvers<void>();
    let output = '';
    child.stdout.on('data', (chunk: Buffer) => {
      if (output.length < 100_000) output += chunk.toString('utf8');
      if (output.includes(ready)) up.resolve();
    });
    child.once('exit', (code) =>
      up.reject(new Error(`the server ended with ${code} before it was ready:\n${output}`)),
    );
    await up.promise;
    if (child.pid === undefined) throw new Error('the server has no pid');
    return new Watched(child, child.pid);
  }

  /** User and system time so far of the process and its threads, in microseconds. The kernel counts in ticks of 10 ms. */
  cpu(): number {
    return cpuOf(this.pid);
  }

  /** The most memory it has had so far (VmHWM), in MiB. */
  peakMemory(): number {
    return peakMemoryOf(this.pid);
  }

  /** What it has now (VmRSS), in MiB. */
  memory(): number {
    return memoryOf(this.pid, 'VmRSS');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode !== null) return;
    const gone = new Promise((resolve) => this.#child.once('exit', resolve));
    this.#child.kill('SIGTERM');
    await gone;
  }
}

/** What one scene came to. */
export interface Figures {
  readonly count: number;
  readonly perSecond: number;
  readonly cpuMicroseconds: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

/** @param times milliseconds of each request or message @param spent microseconds of CPU for all of them */
export function figuresOf(times: readonly number[], seconds: number, spent: number): Figures {
  const sorted = times.toSorted((a, b) => a - b);
  const at = (share: number): number =>
    Number((sorted[Math.floor((sorted.length - 1) * share)] ?? 0).toFixed(2));
  return {
    count: sorted.length,
    perSecond: Math.round(sorted.length / seconds),
    cpuMicroseconds: Math.round(spent / sorted.length),
    p50Ms: at(0.5),
    p99Ms: at(0.99),
  };
}

const TICK_MICROSECONDS = 10_000;

/** User and system time of a process and of its children that have ended, in microseconds. */
export function cpuOf(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  let ticks = 0;
  for (const field of fields.slice(11, 15)) ticks += Number(field);
  return ticks * TICK_MICROSECONDS;
}

export function peakMemoryOf(pid: number): number {
  return memoryOf(pid, 'VmHWM');
}

function memoryOf(pid: number, field: 'VmHWM' | 'VmRSS'): number {
  const line = new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(readFileSync(`/proc/${pid}/status`, 'latin1'));
  if (line === null) throw new Error(`/proc/${pid}/status has no ${field}`);
  return Math.round(Number(line[1]) / 1024);
}
