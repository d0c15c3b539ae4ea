import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';

import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { openListener, type Listener, type ListenerOptions } from '../../../src/runtime/listener.ts';

let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'postern-listener-'));
});

afterEach(async () => {
  await rm(folder, { recursive: true });
});

function tcp(differs: Partial<ListenerOptions> = {}): ListenerOptions {
  const address = { kind: 'tcp', host: '127.0.0.1', port: 0 } as const;
  return { address, mode: 0o660, group: null, maxConnections: 10, ...differs };
}

function unix(name: string, differs: Partial<ListenerOptions> = {}): ListenerOptions {
  return tcp({ address: { kind: 'unix', path: join(folder, name) }, ...differs });
}

function dial(listener: Listener): Socket {
  const socket =
    listener.port === null
      ? connect({ path: listener.text.slice('unix:'.length) })
      : connect({ host: '127.0.0.1', port: listener.port });
  socket.on('error', () => socket.destroy());
  return socket;
}

/** Unlike `once`, not disturbed by the error before it. */
function closed(socket: Socket): Promise<void> {
  return new Promise((resolve) => {
    if (socket.closed) resolve();
    else socket.once('close', () => resolve());
  });
}

/** A unix socket that its process left behind. */
async function abandon(path: string): Promise<void> {
  const script = `require('net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`;
  await once(spawn(process.execPath, ['-e', script]), 'exit');
  expect((await stat(path)).isSocket()).toBe(true);
}

describe('unix sockets', () => {
  test('get the mode and the group that was asked for', async () => {
    // One of our own groups: without being root, no other is allowed.
    const gid = process.getgroups?.().at(-1) ?? process.getgid?.() ?? 0;
    const listener = await openListener(unix('s', { mode: 0o620, group: String(gid) }));
    const { mode, gid: owner } = await stat(join(folder, 's'));
    expect([mode & 0o777, owner]).toEqual([0o620, gid]);
    expect(listener.text).toBe(`unix:${folder}/s`);
    expect(listener.port).toBeNull();
    await listener[Symbol.asyncDispose]();
    await expect(stat(join(folder, 's'))).rejects.toThrow('ENOENT');
  });

  test('a group by its name', async () => {
    const gid = process.getgid?.() ?? 0;
    const line = (await readFile('/etc/group', 'utf8'))
      .split('\n')
      .find((entry) => entry.split(':')[2] === `${gid}`);
    const [name = ''] = line?.split(':') ?? [];
    await using listener = await openListener(unix('s', { group: name }));
    expect((await stat(join(folder, 's'))).gid).toBe(gid);
    expect(listener.connections.size).toBe(0);
  });

  test('a group that is not there is an error with advice, and nothing stays open', async () => {
    await expect(openListener(unix('s', { group: 'no-such-group' }))).rejects.toThrow(
      'no group named "no-such-group" on this machine',
    );
    await expect(stat(join(folder, 's'))).rejects.toThrow('ENOENT');
  });

  test('one that a killed process left behind is taken over', async () => {
    await abandon(join(folder, 's'));
    await using listener = await openListener(unix('s'));
    listener.serve((socket) => socket.end('here'));
    expect(await text(dial(listener))).toBe('here');
  });

  test('one that somebody listens on is not touched', async () => {
    await using first = await openListener(unix('s'));
    first.serve((socket) => socket.end('first'));
    await expect(openListener(unix('s'))).rejects.toThrow(
      `cannot listen on unix:${folder}/s (EADDRINUSE): another program listens there`,
    );
    expect(await text(dial(first))).toBe('first');
  });

  test('what is no socket is not touched', async () => {
    await writeFile(join(folder, 's'), 'precious');
    await expect(openListener(unix('s'))).rejects.toThrow('something that is not a socket');
    await symlink(join(folder, 's'), join(folder, 'link'));
    await expect(openListener(unix('link'))).rejects.toThrow('something that is not a socket');
    expect(await readFile(join(folder, 's'), 'utf8')).toBe('precious');
  });

  test('a folder that is not there', async () => {
    await expect(openListener(unix('missing/s'))).rejects.toThrow('the folder of the socket is not there');
  });
});

describe('TCP', () => {
  test('port 0 gives a free port and says which', async () => {
    await using listener = await openListener(tcp());
    expect(listener.port).toBeGreaterThan(0);
    expect(listener.text).toBe(`127.0.0.1:${listener.port}`);
  });

  test('a port that is taken', async () => {
    await using first = await openListener(tcp());
    const address = { kind: 'tcp', host: '127.0.0.1', port: first.port ?? 0 } as const;
    await expect(openListener(tcp({ address }))).rejects.toThrow(
      `cannot listen on 127.0.0.1:${first.port} (EADDRINUSE): another program listens there`,
    );
  });

  test('an address of another machine', async () => {
    const address = { kind: 'tcp', host: '192.0.2.1', port: 0 } as const;
    await expect(openListener(tcp({ address }))).rejects.toThrow('this machine has no such address');
  });
});

describe('connections', () => {
  test('those that come before serve are held, and nothing they sent is lost', async () => {
    await using listener = await openListener(tcp());
    const early = dial(listener);
    early.end('hello');
    await once(early, 'finish');
    const received = Promise.withResolvers<string>();
    listener.serve((socket) => void text(socket).then(received.resolve, received.reject));
    expect(await received.promise).toBe('hello');
  });

  test('one above the limit hears a last line and is closed; when one ends there is room again', async () => {
    await using listener = await openListener(tcp({ maxConnections: 2 }));
    let served = 0;
    listener.serve(
      (socket) => {
        served++;
        socket.write('welcome');
      },
      (socket) => socket.write('421 too many'),
    );
    const [first, second] = [dial(listener), dial(listener)];
    await Promise.all([once(first, 'data'), once(second, 'data')]);
    expect(listener.connections.size).toBe(2);
    expect(await text(dial(listener))).toBe('421 too many');
    expect(served).toBe(2);
    const [gone] = listener.connections;
    first.destroy();
    second.destroy();
    if (gone !== undefined) await closed(gone);
    const next = dial(listener);
    await once(next, 'data');
    expect(served).toBe(3);
    next.destroy();
  });

  test('close lets open connections go on and refuses new ones', async () => {
    await using listener = await openListener(tcp());
    listener.serve((socket) => socket.pipe(socket));
    const open = dial(listener);
    open.write('one');
    await once(open, 'data');
    await Promise.all([listener.close(), listener.close()]);
    open.write('two');
    expect(String((await once(open, 'data'))[0])).toBe('two');
    const late = dial(listener);
    await closed(late);
    expect(late.bytesRead).toBe(0);
    open.destroy();
  });

  test('disposing ends them, those that were held too', async () => {
    const listener = await openListener(tcp());
    const held = dial(listener);
    await once(held, 'connect');
    await listener[Symbol.asyncDispose]();
    await closed(held);
    expect(listener.connections.size).toBe(0);
  });

  test('running out of descriptors costs a connection, not the process', async () => {
    const script = `
      import { openListener } from ${JSON.stringify(new URL('../../../src/runtime/listener.ts', import.meta.url).href)};
      import { connect } from 'node:net';
      import { openSync, closeSync } from 'node:fs';
      const address = { kind: 'tcp', host: '127.0.0.1', port: 0 };
      const listener = await openListener({ address, mode: 0, group: null, maxConnections: 9 });
      listener.serve((socket) => socket.end('served'));
      const answer = () => new Promise((resolve) => {
        let got = '';
        connect(listener.port, '127.0.0.1').on('data', (d) => (got += d)).on('error', () => {}).on('close', () => resolve(got));
      });
      const taken = [];
      try { for (;;) taken.push(openSync('/dev/null')); } catch {}
      closeSync(taken.pop()); // for the client's end
      const starved = await answer();
      for (const fd of taken) closeSync(fd);
      console.log(JSON.stringify({ starved, after: await answer() }));
      await listener[Symbol.asyncDispose]();`;
    const command = 'ulimit -n 64; exec "$0" --input-type=module -e "$1"';
    const child = spawn('bash', ['-c', command, process.execPath, script]);
    const [out, problems] = await Promise.all([text(child.stdout), text(child.stderr)]);
    expect(problems).toBe('');
    expect(JSON.parse(out)).toEqual({ starved: '', after: 'served' });
  });
});
