import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { z } from 'zod';

const MAIN = join(import.meta.dirname, '../../../src/cli/main.ts');

const LINE = z.looseObject({ level: z.string(), msg: z.string() });
type Line = z.infer<typeof LINE>;

/** A `postern run` and the lines it logs. */
class Running implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #waiting = new Set<() => void>();
  readonly lines: Line[] = [];
  readonly exited: Promise<unknown>;
  stderr = '';

  constructor(folder: string, args: readonly string[]) {
    const child = spawn(process.execPath, [MAIN, 'run', ...args], { cwd: folder });
    this.#child = child;
    this.exited = once(child, 'close').then(([code]: unknown[]) => code);
    child.stderr.on('data', (chunk) => (this.stderr += String(chunk)));
    createInterface(child.stdout).on('line', (line) => {
      this.lines.push(LINE.parse(JSON.parse(line)));
      for (const look of this.#waiting) look();
    });
  }

  signal(name: NodeJS.Signals): void {
    this.#child.kill(name);
  }

  /** The first line with that text after the `after` first ones. */
  async logged(msg: string, after = 0): Promise<Line> {
    const found = Promise.withResolvers<Line>();
    const look = (): void => {
      const line = this.lines.slice(after).find((candidate) => candidate.msg === msg);
      if (line !== undefined) found.resolve(line);
    };
    this.#waiting.add(look);
    look();
    const ended = this.exited.then((): never => {
      throw new Error(`ended without "${msg}": ${this.stderr}${JSON.stringify(this.lines)}`);
    });
    try {
      return await Promise.race([found.promise, ended]);
    } finally {
      this.#waiting.delete(look);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.exited;
  }
}

const LOADED = 'postern_config_last_reload_success_timestamp_seconds';

let folder: string;
let config: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'postern-run-'));
  config = join(folder, 'postern.toml');
  await configure();
});

afterEach(async () => {
  await rm(folder, { recursive: true });
});

async function configure(more = '', spamd = '127.0.0.1:1'): Promise<void> {
  const lines = [
    'site.hostname = "mx.example.org"',
    'dns.servers = ["127.0.0.1:1"]',
    `spamd.address = "${spamd}"`,
    `policyd.listen = "unix:${folder}/policyd"`,
    `milter.listen = "unix:${folder}/milter"`,
    `lmtp-filter.listen = "unix:${folder}/lmtp"`,
    `lmtp-filter.upstream = "unix:${folder}/dovecot"`,
    'admin.listen = "127.0.0.1:0"',
  ];
  await writeFile(config, `${lines.join('\n')}\n${more}\n`);
}

/** Where the admin listener of a running process is. */
async function adminUrl(running: Running): Promise<string> {
  await running.logged('ready');
  const line = running.lines.find(({ daemon, msg }) => daemon === 'admin' && msg === 'listening');
  return `http://${String(line?.['listen'])}`;
}

async function metric(url: string, name: string): Promise<number> {
  const all = await (await fetch(`${url}/metrics`)).text();
  const line = all.split('\n').find((sample) => sample.startsWith(`${name} `));
  return Number(line?.split(' ')[1]);
}

/** Something that takes connections, as Dovecot would, and answers PING as spamd does. */
async function neighbour(address: string | number): Promise<Server> {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => socket.destroy());
    socket.on('end', () => socket.end('SPAMD/1.5 0 PONG\r\n'));
    socket.resume();
  });
  server.listen(address);
  await once(server, 'listening');
  return server;
}

describe('start', () => {
  test('all three, from the log to /readyz, and a clean end', async () => {
    await using running = new Running(folder, ['--config', config]);
    const url = await adminUrl(running);
    const listening = running.lines.filter(({ msg }) => msg === 'listening');
    expect(listening.map(({ daemon, listen }) => [daemon, listen])).toEqual([
      ['policyd', `unix:${folder}/policyd`],
      ['milter', `unix:${folder}/milter`],
      ['lmtp-filter', `unix:${folder}/lmtp`],
      ['admin', url.slice('http://'.length)],
    ]);
    const neighbours = running.lines.filter(({ msg }) => msg === 'neighbour');
    expect(
      new Set(neighbours.map((line) => `${String(line['neighbour'])} ${String(line['state'])}`)),
    ).toEqual(new Set(['spamd not there', 'clamd not there', 'dovecot not there']));
    const ready = await fetch(`${url}/readyz`);
    expect(ready.status).toBe(200);
    expect(await ready.json()).toEqual({
      ready: true,
      listeners: {
        policyd: `unix:${folder}/policyd`,
        milter: `unix:${folder}/milter`,
        'lmtp-filter': `unix:${folder}/lmtp`,
      },
      neighbours: { spamd: 'not there', clamd: 'not there' },
    });
    expect(await metric(url, 'postern_config_last_reload_successful')).toBe(1);
    expect((await stat(join(folder, 'postern-state'))).mode & 0o777).toBe(0o700);
    running.signal('SIGTERM');
    expect(await running.exited).toBe(0);
    expect(running.lines.at(-1)?.msg).toBe('stopped');
    expect(running.stderr).toBe('');
    for (const name of ['policyd', 'milter', 'lmtp']) {
      await expect(stat(join(folder, name))).rejects.toThrow('ENOENT');
    }
  });

  test('neighbours that are there', async () => {
    const spamd = await neighbour(0);
    const dovecot = await neighbour(join(folder, 'dovecot'));
    try {
      const bound = spamd.address();
      const port = typeof bound === 'object' && bound !== null ? bound.port : 0;
      await configure('', `127.0.0.1:${port}`);
      await using running = new Running(folder, ['milter', 'lmtp-filter', '--config', config]);
      const url = await adminUrl(running);
      const states = running.lines
        .filter(({ msg }) => msg === 'neighbour')
        .map((line) => String(line['state']));
      // clamd is none of them.
      expect(states.toSorted((one, other) => one.localeCompare(other))).toEqual([
        'not there',
        'there',
        'there',
      ]);
      expect(await (await fetch(`${url}/readyz`)).json()).toMatchObject({ neighbours: { spamd: 'there' } });
    } finally {
      spamd.close();
      dovecot.close();
    }
  });

  test('one of them, with its own admin address', async () => {
    await using running = new Running(folder, [
      'policyd',
      '--config',
      config,
      '--admin',
      `unix:${folder}/admin`,
    ]);
    const ready = await running.logged('ready');
    expect(ready['daemons']).toEqual(['policyd']);
    const listening = running.lines.filter(({ msg }) => msg === 'listening');
    expect(listening.map(({ listen }) => listen)).toEqual([`unix:${folder}/policyd`, `unix:${folder}/admin`]);
    expect(running.lines.filter(({ msg }) => msg === 'neighbour')).toEqual([]);
    running.signal('SIGINT');
    expect(await running.exited).toBe(0);
  });

  test('without admin listener', async () => {
    await using running = new Running(folder, ['policyd', '--config', config, '--admin', 'none']);
    await running.logged('ready');
    expect(running.lines.filter(({ msg }) => msg === 'listening')).toHaveLength(1);
  });

  test('a configuration with mistakes: every one is named, 78', async () => {
    await configure('policyd.deadline = "soon"\nthresholds.tag = "five"');
    await using running = new Running(folder, ['--config', config]);
    expect(await running.exited).toBe(78);
    expect(running.stderr).toContain('policyd.deadline');
    expect(running.stderr).toContain('thresholds.tag');
    expect(running.lines).toEqual([]);
  });

  test('an address that is taken: nothing serves, everything is closed, 1', async () => {
    const other = await neighbour(join(folder, 'lmtp'));
    try {
      await using running = new Running(folder, ['--config', config]);
      expect(await running.exited).toBe(1);
      const [last] = running.lines.slice(-1);
      expect(last).toMatchObject({ level: 'fatal', msg: 'cannot start' });
      expect(String(last?.['why'])).toContain(`cannot listen on unix:${folder}/lmtp (EADDRINUSE)`);
      await expect(stat(join(folder, 'policyd'))).rejects.toThrow('ENOENT');
    } finally {
      other.close();
    }
  });

  test('a store that can not be used: 1, with what to do', async () => {
    await configure(`state.folder = "${config}/below-a-file"`);
    await using running = new Running(folder, ['policyd', '--config', config]);
    expect(await running.exited).toBe(1);
    expect(String(running.lines.at(-1)?.['why'])).toContain('the state folder must be writable');
  });
});

describe('reload', () => {
  test('takes over a good configuration and names what has to wait', async () => {
    await using running = new Running(folder, ['policyd', '--config', config]);
    const url = await adminUrl(running);
    await configure(
      `log.level = "warn"\nstate.folder = "elsewhere"\npolicyd.max_connections = 7\nmilter.max_connections = 8`,
    );
    const before = running.lines.length;
    const loaded = await metric(url, LOADED);
    running.signal('SIGHUP');
    const waiting = await running.logged('these settings change with the next start only', before);
    // The milter does not run here, so nothing of it waits.
    expect(waiting['keys']).toEqual(['state.folder', 'policyd.max_connections']);
    await running.logged('reloaded', before);
    expect(await metric(url, LOADED)).toBeGreaterThan(loaded);
    expect((await fetch(`${url}/readyz`)).status).toBe(200);
    running.signal('SIGTERM');
    expect(await running.exited).toBe(0);
    // The new level holds: "stopped" is not said any more.
    expect(running.lines.some(({ msg }) => msg === 'stopped')).toBe(false);
    await expect(stat(join(folder, 'elsewhere'))).rejects.toThrow('ENOENT');
  });

  test('keeps the one in use when the new one has mistakes, until it is mended', async () => {
    await using running = new Running(folder, ['policyd', '--config', config]);
    const url = await adminUrl(running);
    await configure('policyd.deadline = "soon"\nthresholds.tag = "five"');
    running.signal('SIGHUP');
    const failed = await running.logged('reload failed, the configuration in use stays');
    expect(failed).toMatchObject({ level: 'error', mistakes: 2 });
    const problems = running.lines.filter(({ msg }) => msg === 'mistake in the configuration');
    expect(problems.map(({ problem }) => String(problem).split(': ')[1])).toEqual([
      'policyd.deadline',
      'thresholds.tag',
    ]);
    expect(await metric(url, 'postern_config_last_reload_successful')).toBe(0);
    expect((await fetch(`${url}/readyz`)).status).toBe(200);
    await configure();
    running.signal('SIGHUP');
    await running.logged('reloaded');
    expect(await metric(url, 'postern_config_last_reload_successful')).toBe(1);
  });
});
