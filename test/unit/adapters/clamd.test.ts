import { once } from 'node:events';
import { createServer, type Server, type Socket } from 'node:net';

import { afterEach, describe, expect, it } from 'vitest';

import { createClamd, type ClamdAddress } from '../../../src/adapters/clamd.ts';
import { NeighbourError } from '../../../src/ports/neighbour-error.ts';
import type { VirusScanner } from '../../../src/ports/virus-scanner.ts';

const PATIENCE_MS = 10_000;
const servers: { readonly server: Server; readonly open: Set<Socket> }[] = [];

afterEach(async () => {
  for (const { server, open } of servers.splice(0)) {
    server.close();
    for (const socket of open) socket.destroy();
    await once(server, 'close');
  }
});

async function listen(onConnection: (socket: Socket) => void): Promise<ClamdAddress> {
  const open = new Set<Socket>();
  const server = createServer((socket) => {
    open.add(socket);
    socket.on('error', () => socket.destroy());
    socket.on('close', () => open.delete(socket));
    onConnection(socket);
  });
  servers.push({ server, open });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  return { kind: 'tcp', host: '127.0.0.1', port: address.port };
}

/** Gives each connection's octets to `judge` as they come, and sends what it says. */
function answering(judge: (octets: Buffer, socket: Socket) => string | null): (socket: Socket) => void {
  return (socket) => {
    let octets = Buffer.alloc(0);
    let said = false;
    socket.on('data', (chunk) => {
      octets = Buffer.concat([octets, chunk]);
      const answer = said ? null : judge(octets, socket);
      if (answer === null) return;
      said = true;
      socket.write(answer);
    });
  };
}

const COMMAND = 'zINSTREAM\0';

/** The message within a stream; null as long as its end is not there. */
function streamed(octets: Buffer): string | null {
  if (octets.toString('latin1', 0, COMMAND.length) !== COMMAND) return null;
  const parts: Buffer[] = [];
  for (let at = COMMAND.length; at + 4 <= octets.length;) {
    const length = octets.readUInt32BE(at);
    if (length === 0) return Buffer.concat(parts).toString('latin1');
    parts.push(octets.subarray(at + 4, at + 4 + length));
    at += 4 + length;
  }
  return null;
}

function ok(seen: string[] = []): (socket: Socket) => void {
  return answering((octets) => {
    const text = streamed(octets);
    if (text === null) return null;
    seen.push(text);
    return 'stream: OK\0';
  });
}

function clamd(addresses: readonly ClamdAddress[], maxConcurrent = 4): VirusScanner {
  return createClamd(
    { addresses, maxConcurrent, connectTimeoutMs: 5000, changed: () => {} },
    { now: () => Date.now(), elapsed: () => performance.now() },
  );
}

function never(): AbortSignal {
  return new AbortController().signal;
}

async function scan(scanner: VirusScanner, text: readonly string[], patienceMs = PATIENCE_MS) {
  const given = scanner.begin(patienceMs, never());
  for (const part of text) await given.write(Buffer.from(part, 'latin1'));
  return await given.end();
}

describe('a message', () => {
  it('comes to clamd as it was given, whatever its octets and pieces', async () => {
    const seen: string[] = [];
    const all = Array.from({ length: 256 }, (_, code) => String.fromCharCode(code)).join('');
    const pieces = ['a', '', all, all.repeat(1000), '\0\0\0\0'];
    expect(await scan(clamd([await listen(ok(seen))]), pieces)).toEqual({ kind: 'clean' });
    expect(seen).toEqual([pieces.join('')]);
  });

  it('may be empty', async () => {
    const seen: string[] = [];
    expect(await scan(clamd([await listen(ok(seen))]), [])).toEqual({ kind: 'clean' });
    expect(seen).toEqual(['']);
  });

  it('is not kept: who gives it waits until clamd reads on', async () => {
    const held = Promise.withResolvers<Socket>();
    const address = await listen((socket) => {
      socket.pause();
      held.resolve(socket);
    });
    const given = clamd([address]).begin(PATIENCE_MS, never());
    await given.write(Buffer.from('x'));
    let waits = false;
    let sent = 0;
    const chunk = Buffer.alloc(1024 * 1024);
    for (let count = 0; count < 64 && !waits; count++) {
      const taken = given.write(chunk);
      sent += chunk.length;
      if (taken === undefined) continue;
      waits = (await Promise.race([taken.then(() => 'taken'), tick()])) !== 'taken';
    }
    expect(waits).toBe(true);
    expect(sent).toBeLessThan(64 * chunk.length);
    (await held.promise).destroy();
    await expect(given.end()).rejects.toThrow(NeighbourError);
  });
});

/** Long enough for a kernel that has room to take octets. */
async function tick(): Promise<string> {
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
  return 'waits';
}

describe('a clamd that', () => {
  it.each([
    ['answers nonsense', 'SPAMD/1.1 0 EX_OK\0', "not clamd's language"],
    ['never ends its answer', 'x'.repeat(4097), 'longer than 4096'],
  ])('%s could not be asked', async (_, answer, why) => {
    const address = await listen(answering((octets) => (streamed(octets) === null ? null : answer)));
    const error = await scan(clamd([address]), ['x']).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(NeighbourError);
    expect(error instanceof Error && error.cause instanceof Error ? error.cause.message : '').toContain(why);
  });

  it('says that a message is clean of which it has not seen the end is not believed', async () => {
    const address = await listen(answering(() => 'stream: OK\0'));
    const given = clamd([address]).begin(PATIENCE_MS, never());
    const heard = Promise.withResolvers<void>();
    servers[0]?.server.once('connection', (socket: Socket) => socket.once('close', () => heard.resolve()));
    await given.write(Buffer.from('x'));
    await heard.promise;
    await expect(given.end()).rejects.toMatchObject({
      cause: { message: 'said that the message is clean before its end' },
    });
  });

  it('closes without a word could not be asked, at whatever point', async () => {
    const atOnce = await listen((socket) => socket.destroy());
    await expect(scan(clamd([atOnce]), ['x'])).rejects.toThrow(NeighbourError);
    const later = await listen(
      answering((octets, socket) => {
        if (streamed(octets) !== null) socket.end();
        return null;
      }),
    );
    await expect(scan(clamd([later]), ['x'])).rejects.toMatchObject({
      cause: { message: 'closed the connection without an answer' },
    });
  });

  it('says nothing is waited for no longer than the patience, and let go', async () => {
    const closed = Promise.withResolvers<void>();
    const address = await listen((socket) => {
      socket.resume();
      socket.once('close', () => closed.resolve());
    });
    expect(await scan(clamd([address]), ['x'], 50)).toEqual({ kind: 'timeout' });
    await closed.promise;
  });

  it('is let go when nobody wants to know any more', async () => {
    const there = Promise.withResolvers<void>();
    const closed = Promise.withResolvers<void>();
    const address = await listen((socket) => {
      socket.resume();
      there.resolve();
      socket.once('close', () => closed.resolve());
    });
    const controller = new AbortController();
    const given = clamd([address]).begin(PATIENCE_MS, controller.signal);
    await there.promise;
    controller.abort(new Error('the client left'));
    await closed.promise;
    await expect(given.end()).rejects.toThrow('given up');
    expect(given.write(Buffer.from('x'))).toBeUndefined();
  });
});

describe('several clamds', () => {
  it('share the work: the one with the least to do is asked', async () => {
    const counts = [0, 0];
    const held: (() => void)[] = [];
    const full = Promise.withResolvers<void>();
    const holding = (index: number) =>
      answering((octets, socket) => {
        if (streamed(octets) === null) return null;
        counts[index] = (counts[index] ?? 0) + 1;
        held.push(() => socket.write('stream: OK\0'));
        if (held.length === 4) full.resolve();
        return null;
      });
    const scanner = clamd([await listen(holding(0)), await listen(holding(1))]);
    const scans = Array.from({ length: 4 }, () => scan(scanner, ['x']));
    await full.promise;
    expect(counts).toEqual([2, 2]);
    for (const answer of held) answer();
    expect(await Promise.all(scans)).toEqual(Array.from({ length: 4 }, () => ({ kind: 'clean' })));
  });

  it('that broke off in the middle of a message rest, and the message goes to nobody else', async () => {
    const seen: string[] = [];
    const addresses = [
      await listen(answering((_, socket) => (socket.destroy(), null))),
      await listen(ok(seen)),
    ];
    const changes: string[] = [];
    const scanner = createClamd(
      {
        addresses,
        maxConcurrent: 4,
        connectTimeoutMs: 5000,
        changed: (place, works) => void changes.push(`${place} ${works}`),
      },
      { now: () => Date.now(), elapsed: () => performance.now() },
    );
    await expect(scan(scanner, ['x'])).rejects.toThrow(NeighbourError);
    expect([seen, changes]).toEqual([[], ['0 false']]);
    expect(await scan(scanner, ['y'])).toEqual({ kind: 'clean' });
    expect(await scan(scanner, ['z'])).toEqual({ kind: 'clean' });
    expect(seen).toEqual(['y', 'z']);
  });

  it('are asked one after the other until one takes the connection', async () => {
    const dead = await listen(() => {});
    const [first] = servers.splice(0);
    first?.server.close();
    const seen: string[] = [];
    const scanner = clamd([dead, await listen(ok(seen))]);
    expect(await scan(scanner, ['x'])).toEqual({ kind: 'clean' });
    expect(seen).toEqual(['x']);
    await expect(scanner.ping(AbortSignal.timeout(1))).rejects.toThrow(NeighbourError);
  });

  it('take no more at once than they may, and the others wait their turn', async () => {
    let now = 0;
    let most = 0;
    const address = await listen((socket) => {
      most = Math.max(most, ++now);
      answering((octets) => {
        if (streamed(octets) === null) return null;
        now--;
        return 'stream: OK\0';
      })(socket);
    });
    const scanner = clamd([address], 2);
    await Promise.all(Array.from({ length: 12 }, () => scan(scanner, ['x'])));
    expect(most).toBe(2);
  });
});
