import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';

import { afterEach, describe, expect, test } from 'vitest';

import { ANSWER_LIMIT, Doveadm } from '../../../src/adapters/doveadm.ts';

type Answer = (question: string, response: ServerResponse, request: IncomingMessage) => void;

const open: (() => void)[] = [];

afterEach(() => {
  for (const close of open.splice(0)) close();
});

interface Rig {
  readonly doveadm: Doveadm;
  readonly server: Server;
  readonly questions: string[];
  readonly connections: () => number;
}

async function rig(
  answer: Answer,
  values: { timeoutMs?: number; maxConcurrent?: number } = {},
): Promise<Rig> {
  const questions: string[] = [];
  let connections = 0;
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const question = Buffer.concat(chunks).toString('utf8');
      questions.push(question);
      answer(question, response, request);
    });
  });
  server.on('connection', () => (connections += 1));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const listening = server.address();
  const port = typeof listening === 'object' && listening !== null ? listening.port : 0;
  const doveadm = new Doveadm({
    address: { kind: 'tcp', host: '127.0.0.1', port },
    apiKey: 'secret',
    timeoutMs: 2000,
    maxConcurrent: 2,
    ...values,
  });
  open.push(() => {
    doveadm[Symbol.dispose]();
    server.closeAllConnections();
    server.close();
  });
  return { doveadm, server, questions, connections: () => connections };
}

function say(text: string, status = 200): Answer {
  return (_question, response) => {
    response.writeHead(status, { 'content-type': 'application/json' });
    response.end(text);
  };
}

/** What Dovecot 2.3.19.1 said, byte for byte, with our tag. */
const STORAGE = '{"root":"User quota","type":"STORAGE","value":"1","limit":"1024","percent":"0"}';
const MESSAGE = '{"root":"User quota","type":"MESSAGE","value":"3","limit":"-","percent":"0"}';
const USUAL = `[["doveadmResponse",[${STORAGE},${MESSAGE}],"quota"]]`;

async function failure(answer: Answer, values: { timeoutMs?: number } = {}): Promise<string> {
  const { doveadm } = await rig(answer, values);
  const error: unknown = await doveadm.quota('zeus@x').catch((thrown: unknown) => thrown);
  if (!(error instanceof Error) || !(error.cause instanceof Error))
    throw new Error('it did not fail as it should');
  expect(error.name).toBe('NeighbourError');
  expect(error.message).toMatch(/^doveadm at 127\.0\.0\.1:\d+$/);
  return error.cause.message;
}

describe('a user’s quota', () => {
  test('in octets, asked with the key', async () => {
    let header: string | undefined;
    const { doveadm, questions } = await rig((question, response, request) => {
      header = request.headers.authorization;
      expect(request.url).toBe('/doveadm/v1');
      say(USUAL)(question, response, request);
    });
    expect(await doveadm.quota('z\u00c3\u00a9us@x')).toEqual([
      { name: 'User quota', used: 1024, limit: 1024 ** 2 },
    ]);
    expect(questions).toEqual(['[["quotaGet",{"user":"z\u00e9us@x"},"quota"]]']);
    expect(header).toBe(`X-Dovecot-API ${Buffer.from('secret').toString('base64')}`);
  });

  test('without a limit, of several roots, and of none', async () => {
    const unlimited = STORAGE.replace('"1024"', '"-"');
    const second = STORAGE.replace('User quota', 'Shared');
    const { doveadm } = await rig(say(`[["doveadmResponse",[${unlimited},${second}],"quota"]]`));
    expect(await doveadm.quota('zeus@x')).toEqual([
      { name: 'User quota', used: 1024, limit: null },
      { name: 'Shared', used: 1024, limit: 1024 ** 2 },
    ]);
    const none = await rig(say('[["doveadmResponse",[],"quota"]]'));
    expect(await none.doveadm.quota('zeus@x')).toEqual([]);
  });

  test.each([67, 68])('exit code %d: no such user here', async (exitCode) => {
    const { doveadm } = await rig(say(`[["error",{"type":"exitCode","exitCode":${exitCode}},"quota"]]`));
    expect(await doveadm.quota('nobody@x')).toBeNull();
  });
});

/** The beginning of an answer. */
function half(_question: string, response: ServerResponse): void {
  response.writeHead(200, { 'content-length': '100' });
  response.write('[[');
}

describe('what is no answer', () => {
  test.each([
    ['[["error",{"type":"exitCode","exitCode":75},"quota"]]', 'it failed for now (exit code 75)'],
    ['[["error",{"type":"unknownMethod","exitCode":0},"quota"]]', 'unknownMethod, exit code 0'],
    [USUAL.replace('"quota"', '"other"'), 'it answered another question'],
    ['', 'it answered nonsense'],
    ['<html>', 'it answered nonsense'],
    ['[]', 'it answered nonsense'],
    [
      '[["doveadmResponse",[{"root":"x","type":"STORAGE","value":"-1","limit":"-"}],"quota"]]',
      'it answered nonsense',
    ],
    [
      '[["doveadmResponse",[{"root":"x","type":"STORAGE","value":"1e99","limit":"-"}],"quota"]]',
      'it answered nonsense',
    ],
  ])('%s', async (text, why) => {
    expect(await failure(say(text))).toBe(why);
  });

  test('refusals of our key, and other statuses', async () => {
    expect(await failure(say('', 401))).toMatch(/refuses our key \(HTTP status 401\)/);
    expect(await failure(say('', 403))).toMatch(/refuses our key \(HTTP status 403\)/);
    expect(await failure(say('', 500))).toBe('HTTP status 500');
  });

  test('the longest answer, and one octet more', async () => {
    const { doveadm } = await rig(say(USUAL.padEnd(ANSWER_LIMIT)));
    expect(await doveadm.quota('zeus@x')).toHaveLength(1);
    expect(await failure(say(USUAL.padEnd(ANSWER_LIMIT + 1)))).toBe(
      `the answer is longer than ${ANSWER_LIMIT} octets`,
    );
  });

  test('silence, silence in the middle, and a connection that ends', async () => {
    expect(await failure(() => {}, { timeoutMs: 50 })).toBe('no answer within 50 ms');
    expect(await failure(half, { timeoutMs: 50 })).toBe('no answer within 50 ms');
    expect(await failure((_question, response) => response.destroy())).toMatch(/socket hang up|ECONNRESET/);
  });

  test('nobody there', async () => {
    const { doveadm, server } = await rig(say(USUAL));
    await new Promise((resolve) => server.close(resolve));
    await expect(doveadm.quota('zeus@x')).rejects.toMatchObject({ cause: { code: 'ECONNREFUSED' } });
  });
});

describe('connections', () => {
  test('are used again, and no more than so many at once', async () => {
    let most = 0;
    let now = 0;
    const { doveadm, connections, questions } = await rig((question, response, request) => {
      most = Math.max(most, (now += 1));
      setImmediate(() => {
        now -= 1;
        say(USUAL)(question, response, request);
      });
    });
    await Promise.all(Array.from({ length: 20 }, (_, n) => doveadm.quota(`user${n}@x`)));
    expect(questions).toHaveLength(20);
    expect(most).toBeLessThanOrEqual(2);
    expect(connections()).toBeLessThanOrEqual(2);
  });

  test('that Dovecot closed while it was idle cost nothing', async () => {
    const { doveadm, server, connections } = await rig(say(USUAL));
    await doveadm.quota('zeus@x');
    // The next request on the connection meets its end.
    server.prependOnceListener('request', (request) => request.socket.destroy());
    expect(await doveadm.quota('zeus@x')).toHaveLength(1);
    expect(connections()).toBe(2);
  });
});
