import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';

import { afterEach, describe, expect, it } from 'vitest';

import { readRspamd } from '../../../src/adapters/rspamd-answer.ts';
import { createRspamd, type RspamdAddress, type RspamdOptions } from '../../../src/adapters/rspamd.ts';
import { NeighbourError } from '../../../src/ports/neighbour-error.ts';
import type { ScanRequest, SpamScanner } from '../../../src/ports/scanner.ts';
import { client, envelope, message } from '../../support/mail.ts';

const ANSWER = JSON.stringify({
  is_skipped: false,
  score: 3.5,
  required_score: 15,
  action: 'add header',
  symbols: { ZERO: { score: 0 }, SMALL: { score: -1 }, BIG: { score: 4.5 }, 'bad name': { score: 9 } },
  milter: { add_headers: { 'X-Evil': 'yes' }, remove_headers: { Subject: 0 } },
  subject: 'rewritten',
});
const SCAN = {
  score: 3.5,
  required: 15,
  rules: ['BIG', 'SMALL', 'ZERO'],
  fields: [{ name: 'X-Spam-Checker-Version', value: ' rspamd/3.4' }],
  action: 'add header',
};

const servers: Server[] = [];

afterEach(async () => {
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
});

function soon(): AbortSignal {
  return AbortSignal.timeout(10_000);
}

interface Asked {
  readonly method: string | undefined;
  readonly url: string | undefined;
  readonly raw: readonly string[];
  readonly body: string;
}

async function listen(answer: (asked: Asked, response: ServerResponse) => void): Promise<RspamdAddress> {
  const server = createServer((incoming: IncomingMessage, response) => {
    const chunks: Buffer[] = [];
    incoming.on('data', (chunk: Buffer) => chunks.push(chunk));
    incoming.on('end', () => {
      const body = Buffer.concat(chunks).toString('latin1');
      answer({ method: incoming.method, url: incoming.url, raw: incoming.rawHeaders, body }, response);
    });
  });
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const bound = server.address();
  if (bound === null || typeof bound === 'string') throw new Error('no port');
  return { kind: 'tcp', host: '127.0.0.1', port: bound.port };
}

function rspamd(addresses: readonly RspamdAddress[], values: Partial<RspamdOptions> = {}): SpamScanner {
  const clock = { now: () => Date.now(), elapsed: () => performance.now() };
  const limits = { maxConcurrent: 2, timeoutMs: 10_000, maxResponse: 65_536, changed: () => {} };
  return createRspamd({ addresses, ...limits, ...values }, clock);
}

function request(values: Partial<ScanRequest> = {}): ScanRequest {
  const own = values.message ?? message();
  const base = { preamble: [], hide: () => false, user: null, wanted: 'fields' } as const;
  return { ...base, message: own, bodyOctets: own.body.size, ...values };
}

function good(_: Asked, response: ServerResponse): void {
  response.setHeader('Server', 'rspamd/3.4').end(ANSWER);
}

/** Pairs of a raw header list. */
function fieldsOf(raw: readonly string[]): string[] {
  return raw.flatMap((name, index) => (index % 2 === 0 ? [`${name}: ${raw[index + 1]}`] : []));
}

describe('a scan by rspamd', () => {
  it('tells envelope and client in fields of the request, and sends the message without what is hidden', async () => {
    const asked: Asked[] = [];
    const address = await listen((one, response) => {
      asked.push(one);
      good(one, response);
    });
    const shown = message({
      headers: 'X-Spam-Flag: NO\r\nSubject: h\xe9\r\n',
      body: 'a\xff\r\n',
      envelope: envelope({
        sender: '<>',
        recipients: ['<zeus@olimpus.example>', '<h\xc3\xa9ra@olimpus.example>'],
        queueId: 'Q1',
        client: client({
          login: 'zeus',
          name: null,
          helo: 'x\r\ny',
          tls: { protocol: 'TLSv1.3', cipher: 'A', bits: 1 },
        }),
      }),
    });
    const scan = await rspamd([address]).scan(
      request({
        message: shown,
        user: 'zeus@olimpus.example',
        preamble: [{ name: 'X-Envelope-To', value: ' <hidden>' }],
        hide: ({ name }) => name.startsWith('X-'),
      }),
      soon(),
    );
    expect(scan).toEqual(SCAN);
    const [{ method, url, raw, body } = { method: '', url: '', raw: [], body: '' }] = asked;
    expect([method, url, body]).toEqual(['POST', '/checkv2', 'Subject: h\xe9\r\n\r\na\xff\r\n']);
    expect(fieldsOf(raw)).toEqual(
      expect.arrayContaining([
        'From: <>',
        'IP: 192.0.2.20',
        'Helo: x??y',
        'User: zeus',
        'Queue-Id: Q1',
        'TLS-Version: TLSv1.3',
        'TLS-Cipher: A',
        'Deliver-To: zeus@olimpus.example',
        'Rcpt: <zeus@olimpus.example>',
        'Rcpt: <h\xc3\xa9ra@olimpus.example>',
        `Content-Length: ${body.length}`,
      ]),
    );
    expect(raw).not.toContain('Hostname');
  });

  it('names 100 recipients, and shows no more of the body than it shall', async () => {
    const asked: Asked[] = [];
    const address = await listen((one, response) => {
      asked.push(one);
      good(one, response);
    });
    const recipients = Array.from({ length: 101 }, (_, index) => `<${index}@olimpus.example>`);
    const shown = message({
      headers: 'A: 1\r\n',
      body: ['abc', 'def'].map((text) => Buffer.from(text)),
      envelope: envelope({ recipients }),
    });
    await rspamd([address]).scan(request({ message: shown, bodyOctets: 4 }), soon());
    expect(asked[0]?.raw.filter((name) => name === 'Rcpt')).toHaveLength(100);
    expect(asked[0]?.body).toBe('A: 1\r\n\r\nabcd');
  });

  it.each<[string, (asked: Asked, response: ServerResponse) => void, RegExp]>([
    ['says that it can not', (_, response) => response.writeHead(500).end('{"error":"x"}'), /status 500/],
    ['answers no JSON', (_, response) => response.end('<html>'), /no JSON/],
    ['leaves the score out', (_, response) => response.end('{"required_score":1,"action":"x"}'), /"score"/],
    [
      'has no number for it',
      (_, response) => response.end('{"score":"1e9","required_score":1,"action":"x"}'),
      /"score"/,
    ],
    [
      'answers too much',
      (_, response) => response.end(ANSWER + ' '.repeat(65_536)),
      /longer than 65536 octets/,
    ],
    [
      'breaks off',
      (_, response) =>
        void response.writeHead(200, { 'Content-Length': 999 }).write('{', () => response.destroy()),
      /aborted|broke off|hang up|ECONNRESET/,
    ],
    ['closes without a word', (_, response) => response.destroy(), /hang up|ECONNRESET/],
    ['never answers', () => {}, /no answer within 300 ms/],
  ])('%s: it failed, and the next one is asked', async (_, answer, why) => {
    const bad = await listen(answer);
    const error: unknown = await rspamd([bad], { timeoutMs: 300 })
      .scan(request(), soon())
      .catch((reason: unknown) => reason);
    if (!(error instanceof NeighbourError) || !(error.cause instanceof Error))
      throw new Error('that is no failure of a neighbour', { cause: error });
    expect(error.message).toMatch(/^rspamd at 127\.0\.0\.1:\d+$/);
    expect(error.cause.message).toMatch(why);
    const changes: boolean[] = [];
    const both = rspamd([bad, await listen(good)], {
      timeoutMs: 300,
      changed: (__, works) => void changes.push(works),
    });
    expect(await both.scan(request(), soon())).toEqual(SCAN);
    expect(changes).toEqual([false]);
  });

  it('ends with its signal', async () => {
    const taken = Promise.withResolvers<void>();
    const address = await listen(() => taken.resolve());
    const controller = new AbortController();
    const scan = rspamd([address]).scan(request(), controller.signal);
    await taken.promise;
    controller.abort(new Error('deadline'));
    await expect(scan).rejects.toMatchObject({ cause: { message: 'given up' } });
  });

  it('fails with the body’s own error when that can not be read', async () => {
    const address = await listen(good);
    const body = {
      size: 4,
      // oxlint-disable-next-line require-yield
      *chunks(): Generator<Uint8Array> {
        throw new Error('the spool file is gone');
      },
    };
    const scan = rspamd([address, address]).scan(request({ message: { ...message(), body } }), soon());
    await expect(scan).rejects.toThrow('the spool file is gone');
    await expect(scan).rejects.not.toBeInstanceOf(NeighbourError);
  });
});

describe('ping', () => {
  it('is answered by rspamd, and not by whatever else speaks HTTP', async () => {
    const address = await listen(({ url }, response) => response.end(url === '/ping' ? 'pong\r\n' : ''));
    await expect(rspamd([address]).ping(soon())).resolves.toBeUndefined();
    const web = await listen((_, response) => response.end('<html>'));
    await expect(rspamd([web]).ping(soon())).rejects.toThrow(NeighbourError);
  });
});

function symbols(count: number): string {
  return JSON.stringify({
    score: 1,
    required_score: 5,
    action: 'no action',
    symbols: Object.fromEntries(Array.from({ length: count }, (_, index) => [`S${index}`, { score: index }])),
  });
}

function field(server: string): string | undefined {
  return readRspamd(ANSWER, server).fields[0]?.value;
}

describe('an answer', () => {
  it('has up to 500 symbols, of which those that count most stay', () => {
    expect(readRspamd(symbols(500), '').rules).toHaveLength(500);
    const { rules, action } = readRspamd(symbols(501), '');
    expect([rules.length, rules[0], rules.at(-1), action]).toEqual([500, 'S500', 'S1', undefined]);
  });

  it('names the scanner harmlessly', () => {
    expect(field('')).toBe(' rspamd');
    expect(field('a\r\nX: y')).toBe(' a??X: y');
    expect(field('x'.repeat(61))).toHaveLength(61);
  });

  it('may have no symbols', () => {
    expect(readRspamd('{"score":0,"required_score":5,"action":"no action"}', '').rules).toEqual([]);
  });
});
