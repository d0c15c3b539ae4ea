import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';

import { afterEach, describe, expect, it } from 'vitest';

import type { SpamdAddress } from '../../../src/adapters/spamd-exchange.ts';
import { createSpamd, type SpamdOptions } from '../../../src/adapters/spamd.ts';
import type { Message } from '../../../src/mail/message.ts';
import type { Clock } from '../../../src/ports/clock.ts';
import { NeighbourError } from '../../../src/ports/neighbour-error.ts';
import type { ScanRequest, SpamScanner } from '../../../src/ports/scanner.ts';
import { message } from '../../support/mail.ts';

const SECTION = 'X-Spam-Status: No, score=1.0 required=5.0 tests=A,B autolearn=no\r\nFrom: x\r\n\r\n';
const ANSWER = `SPAMD/1.1 0 EX_OK\r\nContent-length: ${SECTION.length}\r\nSpam: False ; 1.0 / 5.0\r\n\r\n${SECTION}`;
const SCAN = {
  score: 1,
  required: 5,
  rules: ['A', 'B'],
  fields: [{ name: 'X-Spam-Status', value: ' No, score=1.0 required=5.0 tests=A,B autolearn=no' }],
};

const servers: { close(): Promise<void> }[] = [];

afterEach(async () => {
  await Promise.all(servers.splice(0).map((server) => server.close()));
});

/** Fails the test when what it waits for does not come. */
function soon(): AbortSignal {
  return AbortSignal.timeout(10_000);
}

async function listen(onConnection: (socket: Socket) => void, path?: string): Promise<SpamdAddress> {
  const open = new Set<Socket>();
  const server: Server = createServer({ allowHalfOpen: true }, (socket) => {
    open.add(socket);
    socket.on('error', () => socket.destroy());
    socket.on('close', () => open.delete(socket));
    onConnection(socket);
  });
  await new Promise<void>((resolve) => server.listen(path ?? { host: '127.0.0.1', port: 0 }, resolve));
  servers.push({
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        for (const socket of open) socket.destroy();
      }),
  });
  const address = server.address();
  if (address === null || typeof address === 'string') return { kind: 'unix', path: path ?? '' };
  return { kind: 'tcp', host: '127.0.0.1', port: address.port };
}

/** Answers when the request is there, with its end. */
function answering(reply: (request: string, socket: Socket) => void): (socket: Socket) => void {
  return (socket) => {
    const chunks: Buffer[] = [];
    socket.on('data', (chunk) => chunks.push(chunk));
    socket.on('end', () => reply(Buffer.concat(chunks).toString('latin1'), socket));
  };
}

const clock: Clock = { now: () => Date.now(), elapsed: () => performance.now() };

function spamd(address: SpamdAddress, values: Partial<SpamdOptions> = {}): SpamScanner {
  return spamds([address], values);
}

function spamds(addresses: readonly SpamdAddress[], values: Partial<SpamdOptions> = {}): SpamScanner {
  const defaults = {
    maxConcurrent: 5,
    connectTimeoutMs: 5000,
    timeoutMs: 30_000,
    maxResponse: 65_536,
    changed: () => {},
  };
  return createSpamd({ addresses, ...defaults, ...values }, clock);
}

/** How it failed: as a neighbour does, and why. */
async function failure(scan: Promise<unknown>): Promise<{ message: string; cause: string }> {
  const error = await scan.then(
    () => null,
    (reason: unknown) => reason,
  );
  if (!(error instanceof NeighbourError) || !(error.cause instanceof Error))
    throw new Error('that is no failure of a neighbour', { cause: error });
  return { message: error.message, cause: error.cause.message };
}

function request(checked: Message = message(), values: Partial<ScanRequest> = {}): ScanRequest {
  return {
    message: checked,
    preamble: [],
    hide: () => false,
    bodyOctets: checked.body.size,
    user: null,
    wanted: 'fields',
    ...values,
  };
}

describe('a scan', () => {
  it('sends preamble, visible fields and body with their exact length, and its end', async () => {
    const requests: string[] = [];
    const address = await listen(
      answering((text, socket) => {
        requests.push(text);
        socket.end(ANSWER);
      }),
    );
    const checked = message({
      headers: 'X-Spam-Flag: NO\r\nSubject : h\xe9\r\n\tllo\r\nBad: a\nX-Envelope-From: <evil>\r\n',
      body: [Buffer.from('a\0\xff\r\n', 'latin1'), Buffer.from('b\r\n')],
    });
    const scan = await spamd(address).scan(
      request(checked, {
        preamble: [{ name: 'X-Envelope-From', value: ' <thor@valhalla.example>' }],
        hide: ({ name }) => name.startsWith('X-'),
      }),
      soon(),
    );
    expect(scan).toEqual(SCAN);
    const sent =
      'X-Envelope-From: <thor@valhalla.example>\r\nSubject : h\xe9\r\n\tllo\r\nBad: a\r\n\tX-Envelope-From: <evil>\r\n\r\na\0\xff\r\nb\r\n';
    expect(requests).toEqual([`HEADERS SPAMC/1.5\r\nContent-length: ${sent.length}\r\n\r\n${sent}`]);
  });

  it('reads the answer in whatever pieces it comes', async () => {
    const address = await listen(
      answering((_, socket) => {
        socket.setNoDelay(true);
        let at = 0;
        const next = (): void => {
          if (at === ANSWER.length) socket.end();
          else socket.write(ANSWER.slice(at, ++at), () => setImmediate(next));
        };
        next();
      }),
    );
    expect(await spamd(address).scan(request(), soon())).toEqual(SCAN);
  });

  it('goes over a unix socket', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'postern-spamd-'));
    try {
      const address = await listen(
        answering((_, socket) => socket.end(ANSWER)),
        join(folder, 'spamd.sock'),
      );
      expect(address.kind).toBe('unix');
      expect(await spamd(address).scan(request(), soon())).toEqual(SCAN);
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  it('takes an error that comes before everything was sent', async () => {
    const address = await listen((socket) => {
      socket.once('data', () => {
        socket.end('SPAMD/1.0 76 Bad header line: x\r\n');
        socket.resume();
      });
    });
    const big = message({ body: Array.from({ length: 64 }, () => Buffer.alloc(65_536, 'x')) });
    const { cause } = await failure(spamd(address).scan(request(big), soon()));
    expect(cause).toMatch(/76 Bad header line/);
  });

  it('reads no more of the body than spamd takes', async () => {
    const chunk = Buffer.alloc(65_536, 'x');
    const count = 512;
    let read = 0;
    const size = chunk.length * count;
    const stuck = Promise.withResolvers<Socket>();
    const address = await listen((socket) => {
      socket.pause();
      stuck.resolve(socket);
    });
    const body = {
      size,
      *chunks() {
        for (; read < count; read++) yield chunk;
      },
    };
    const scan = spamd(address).scan(request({ ...message(), body }), soon());
    const socket = await stuck.promise;
    let before = -1;
    while (before !== read) {
      before = read;
      for (let turn = 0; turn < 50; turn++) await new Promise((resolve) => setImmediate(resolve));
    }
    // What the kernel's buffers hold, far from all of it.
    expect(read).toBeLessThan(count / 2);
    let received = 0;
    socket.on('data', (data) => (received += data.length));
    socket.on('end', () => socket.end(ANSWER));
    socket.resume();
    expect(await scan).toEqual(SCAN);
    expect(received).toBeGreaterThan(size);
    expect(read).toBe(count);
  });

  it('reads a body that comes from a file', async () => {
    const address = await listen(answering((_, socket) => socket.end(ANSWER)));
    const body = {
      size: 4,
      async *chunks() {
        yield await Promise.resolve(Buffer.from('a\r\n\n'));
      },
    };
    expect(await spamd(address).scan(request({ ...message(), body }), soon())).toEqual(SCAN);
  });

  it('fails with the body’s own error when that can not be read', async () => {
    const address = await listen(answering((_, socket) => socket.end(ANSWER)));
    const body = {
      size: 4,
      // oxlint-disable-next-line require-yield
      *chunks(): Generator<Uint8Array> {
        throw new Error('the spool file is gone');
      },
    };
    const scan = spamd(address).scan(request({ ...message(), body }), soon());
    await expect(scan).rejects.toThrow('the spool file is gone');
    await expect(scan).rejects.not.toBeInstanceOf(NeighbourError);
  });
});

describe('a spamd that fails', () => {
  it.each<[string, (socket: Socket) => void, RegExp]>([
    ['closes without a byte', answering((_, socket) => socket.end()), /without an answer/],
    ['closes at once', (socket) => socket.destroy(), /without an answer|ECONNRESET|EPIPE|closed/],
    ['resets the connection', (socket) => socket.resetAndDestroy(), /ECONNRESET|EPIPE/],
    ['breaks off', answering((_, socket) => socket.end(ANSWER.slice(0, 60))), /broke off/],
    [
      'breaks off in the middle of the fields',
      answering((_, socket) => socket.end(ANSWER.slice(0, -1))),
      /announced/,
    ],
    ['is something else', (socket) => socket.end('220 mx ESMTP\r\n'), /not spamd's language/],
  ])('%s', async (_, onConnection, cause) => {
    const address = await listen(onConnection);
    const failed = await failure(spamd(address).scan(request(), soon()));
    expect(failed.message).toMatch(/^spamd at 127\.0\.0\.1:\d+$/);
    expect(failed.cause).toMatch(cause);
  });

  it('is not there', async () => {
    const address = { kind: 'unix', path: '/nonexistent/spamd.sock' } as const;
    await expect(spamd(address).scan(request(), soon())).rejects.toMatchObject({
      message: 'spamd at /nonexistent/spamd.sock',
      cause: { code: 'ENOENT' },
    });
  });

  it('answers more than it may, by one octet', async () => {
    const address = await listen(answering((_, socket) => socket.end(ANSWER)));
    // The header section that comes back is not counted.
    const checked = message();
    const most = ANSWER.length - checked.headers.serialize().length;
    expect(await spamd(address, { maxResponse: most }).scan(request(checked), soon())).toEqual(SCAN);
    const short = spamd(address, { maxResponse: most - 1 });
    const { cause } = await failure(short.scan(request(checked), soon()));
    expect(cause).toBe(`the answer is longer than ${ANSWER.length - 1} octets`);
  });

  it('answers without end', async () => {
    const closed = Promise.withResolvers<void>();
    const address = await listen((socket) => {
      const chunk = Buffer.alloc(16_384, 'x');
      const more = (): void => {
        while (!socket.destroyed && socket.write(chunk));
      };
      socket.on('drain', more);
      socket.on('close', () => closed.resolve());
      socket.resume();
      more();
    });
    await expect(spamd(address).scan(request(), soon())).rejects.toThrow(NeighbourError);
    await closed.promise;
  });

  it('never answers: the connection is gone when the time is up', async () => {
    const taken = Promise.withResolvers<Socket>();
    const address = await listen((socket) => {
      socket.resume();
      socket.on('end', () => taken.resolve(socket));
    });
    const controller = new AbortController();
    const scan = spamd(address).scan(request(), controller.signal);
    const socket = await taken.promise;
    const closed = new Promise((resolve) => socket.once('close', resolve));
    controller.abort(new Error('deadline'));
    await expect(scan).rejects.toMatchObject({
      cause: { message: 'given up', cause: new Error('deadline') },
    });
    // Nobody is left to read what is written, and so the kernel says in the end that the connection is gone.
    const write = (): void => {
      if (!socket.destroyed) socket.write('SPAMD/1.1', () => setImmediate(write));
    };
    write();
    await closed;
  });

  it('is too busy to take the connection', async () => {
    // A thread that listens and then stands still: two connections fill its backlog, a third gets no answer from the kernel.
    const script = `
      const { parentPort } = require('node:worker_threads');
      const server = require('node:net').createServer();
      server.listen({ host: '127.0.0.1', port: 0, backlog: 1 }, () => {
        parentPort.postMessage(server.address().port);
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
      });`;
    const worker = new Worker(script, { eval: true });
    servers.push({ close: async () => void (await worker.terminate()) });
    const port = await new Promise((resolve) => worker.once('message', resolve));
    const address = { kind: 'tcp', host: '127.0.0.1', port: Number(port) } as const;
    const held = [connect(address.port, address.host), connect(address.port, address.host)];
    try {
      await Promise.all(held.map((socket) => once(socket, 'connect')));
      await expect(spamd(address, { connectTimeoutMs: 100 }).ping(soon())).rejects.toMatchObject({
        name: 'NeighbourError',
        cause: { message: 'no connection within 100 ms' },
      });
    } finally {
      for (const socket of held) socket.destroy();
    }
  });

  it('is not asked when the time is up already', async () => {
    let connections = 0;
    const address = await listen(() => connections++);
    await expect(spamd(address).ping(AbortSignal.abort())).rejects.toThrow(NeighbourError);
    expect(connections).toBe(0);
  });
});

describe('scans at once', () => {
  it('are as many as allowed, and one that is given up makes room', async () => {
    const open: Socket[] = [];
    let most = 0;
    let now = 0;
    const two = Promise.withResolvers<void>();
    const address = await listen((socket) => {
      most = Math.max(most, ++now);
      socket.on('close', () => now--);
      socket.resume();
      open.push(socket);
      if (open.length === 2) two.resolve();
      // The first two are held, to be given up; the others are answered.
      if (open.length > 2) socket.on('end', () => socket.end(ANSWER));
    });
    const scanner = spamd(address, { maxConcurrent: 2 });
    const controller = new AbortController();
    const held = [scanner.scan(request(), controller.signal), scanner.scan(request(), controller.signal)];
    const waiting = [scanner.scan(request(), soon()), scanner.scan(request(), soon())];
    await two.promise;
    controller.abort();
    expect((await Promise.allSettled(held)).map(({ status }) => status)).toEqual(['rejected', 'rejected']);
    expect(await Promise.all(waiting)).toEqual([SCAN, SCAN]);
    expect(open).toHaveLength(4);
  });

  it('wait up to a limit', async () => {
    const address = await listen((socket) => socket.resume());
    const scanner = spamd(address, { maxConcurrent: 1 });
    const controller = new AbortController();
    const scans = Array.from({ length: 21 }, () => scanner.scan(request(), controller.signal));
    await expect(scanner.scan(request(), soon())).rejects.toThrow(
      /1 requests are under way and 20 wait already/,
    );
    controller.abort();
    for (const { status } of await Promise.allSettled(scans)) expect(status).toBe('rejected');
  });
});

describe('ping', () => {
  it('asks whether spamd is there, even when all scans are taken', async () => {
    const requests: string[] = [];
    const busy = Promise.withResolvers<void>();
    const address = await listen(
      answering((text, socket) => {
        if (text.startsWith('HEADERS')) busy.resolve();
        else {
          requests.push(text);
          socket.end('SPAMD/1.5 0 PONG\r\n');
        }
      }),
    );
    const scanner = spamd(address, { maxConcurrent: 1 });
    const controller = new AbortController();
    const scan = scanner.scan(request(), controller.signal);
    await busy.promise;
    await scanner.ping(soon());
    expect(requests).toEqual(['PING SPAMC/1.5\r\n\r\n']);
    controller.abort();
    await expect(scan).rejects.toThrow(NeighbourError);
  });

  it('fails when another program answers', async () => {
    const address = await listen(answering((_, socket) => socket.end('* OK IMAP4rev1\r\n')));
    await expect(spamd(address).ping(soon())).rejects.toThrow(NeighbourError);
  });
});

describe('what is asked for', () => {
  it.each([
    ['score', 'SYMBOLS'],
    ['fields', 'HEADERS'],
    ['rewriting', 'PROCESS'],
  ] as const)('%s: %s', async (wanted, verb) => {
    const requests: string[] = [];
    const address = await listen(
      answering((text, socket) => {
        requests.push(text.split('\r\n', 1)[0] ?? '');
        socket.end(ANSWER);
      }),
    );
    await spamd(address).scan(request(message(), { wanted }), soon());
    expect(requests).toEqual([`${verb} SPAMC/1.5`]);
  });

  it('is for a user, and of the first octets alone when it says so', async () => {
    const requests: string[] = [];
    const address = await listen(
      answering((text, socket) => {
        requests.push(text);
        socket.end(ANSWER);
      }),
    );
    const checked = message({
      headers: 'A: 1\r\n',
      body: [Buffer.from('abc'), Buffer.from('def'), Buffer.from('g')],
    });
    for (const bodyOctets of [0, 2, 3, 5, 7])
      await spamd(address).scan(request(checked, { bodyOctets, user: 'zeus@olimpus.example' }), soon());
    const bodies = ['', 'ab', 'abc', 'abcde', 'abcdefg'];
    expect(requests).toEqual(
      bodies.map(
        (body) =>
          `HEADERS SPAMC/1.5\r\nContent-length: ${8 + body.length}\r\nUser: zeus@olimpus.example\r\n\r\nA: 1\r\n\r\n${body}`,
      ),
    );
  });
});

describe('several spamds', () => {
  it.each<[string, (socket: Socket) => void]>([
    ['closes without a byte', answering((_, socket) => socket.end())],
    ['answers with an error', answering((_, socket) => socket.end('SPAMD/1.0 79 Timeout: x\r\n'))],
    ['breaks off', answering((_, socket) => socket.end(ANSWER.slice(0, 60)))],
    ['is something else', (socket) => socket.end('220 mx ESMTP\r\n')],
    ['never answers', (socket) => socket.resume()],
  ])('one %s: the next one is asked', async (_, onConnection) => {
    const bad = await listen(onConnection);
    const good = await listen(answering((_text, socket) => socket.end(ANSWER)));
    const changes: [number, boolean][] = [];
    const scanner = spamds([bad, good], {
      timeoutMs: 300,
      changed: (place, works) => void changes.push([place, works]),
    });
    expect(await scanner.scan(request(), soon())).toEqual(SCAN);
    expect(changes).toEqual([[0, false]]);
    expect(await scanner.scan(request(), soon())).toEqual(SCAN);
    expect(changes).toHaveLength(1);
  });

  it('one that refuses costs nothing; when all do, it says so', async () => {
    const refusing = { kind: 'unix', path: '/nonexistent/spamd.sock' } as const;
    const good = await listen(answering((_, socket) => socket.end(ANSWER)));
    expect(await spamds([refusing, good]).scan(request(), soon())).toEqual(SCAN);
    await expect(spamds([refusing, refusing]).scan(request(), soon())).rejects.toMatchObject({
      name: 'NeighbourError',
      message: 'all 2 failed, the last one',
    });
  });

  it('a body that can not be read is asked of none twice', async () => {
    let connections = 0;
    const count = answering((_, socket) => socket.end(ANSWER));
    const address = await listen((socket) => {
      connections++;
      count(socket);
    });
    const body = {
      size: 4,
      // oxlint-disable-next-line require-yield
      *chunks(): Generator<Uint8Array> {
        throw new Error('the spool file is gone');
      },
    };
    const scan = spamds([address, address]).scan(request({ ...message(), body }), soon());
    await expect(scan).rejects.toThrow('the spool file is gone');
    expect(connections).toBeLessThanOrEqual(1);
  });

  it('one that never answers is given up when its time is up', async () => {
    const address = await listen((socket) => socket.resume());
    const { cause } = await failure(spamd(address, { timeoutMs: 50 }).scan(request(), soon()));
    expect(cause).toBe('no answer within 50 ms');
  });
});
