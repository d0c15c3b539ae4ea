import { createServer, type IncomingHttpHeaders, type ServerResponse } from 'node:http';
import { createServer as createTcpServer, type AddressInfo, type Socket } from 'node:net';

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import {
  GIVE_UP_MS,
  NoticeChannel,
  NoticeRefused,
  QUEUE_LIMIT,
} from '../../../src/adapters/notice-channel.ts';
import { composeNotice, mailDelivery } from '../../../src/adapters/notice-mail.ts';
import { webhookDelivery } from '../../../src/adapters/notice-webhook.ts';
import {
  openNotifier,
  REMEMBERED,
  SUBJECT_LIMIT,
  type NotifierEvents,
} from '../../../src/adapters/notifier.ts';
import type { Notice } from '../../../src/ports/notifier.ts';
import { FakeClock, MORNING } from '../../support/decisions.ts';

const HOUR = 3_600_000;

function notice(values: Partial<Notice> = {}): Notice {
  return {
    event: 'limit',
    time: MORNING,
    subject: 'zeus@olimpus.example',
    text: 'limit "x": 100 of 100 messages within 1h used by zeus@olimpus.example',
    advice: ['postern limits list --limit x', 'postern limits reset --limit x'],
    facts: { limit: 'x', used: 100, login: null, shadow: false },
    ...values,
  };
}

/** Everything a channel tells, as words, and a way to wait for the next. */
class Diary {
  readonly lines: string[] = [];
  #waiting: (() => void) | null = null;

  write(line: string): void {
    this.lines.push(line);
    this.#waiting?.();
  }

  async until(count: number): Promise<readonly string[]> {
    while (this.lines.length < count) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#waiting = resolve;
      await promise;
    }
    return this.lines;
  }

  readonly channel = {
    sent: (of: Notice): void => this.write(`sent ${of.subject}`),
    lost: (of: Notice, why: string): void => this.write(`lost ${of.subject}: ${why}`),
    delayed: (of: Notice, why: string, ms: number): void =>
      this.write(`delayed ${of.subject}: ${why}, ${ms}`),
  };

  readonly notifier: NotifierEvents = {
    told: (of) => this.write(`told ${of.subject}`),
    heldBack: (of, why) => this.write(`${why} ${of.subject}`),
    sent: (of, channel) => this.write(`sent ${of.subject} ${channel}`),
    lost: (of, channel, why) => this.write(`lost ${of.subject} ${channel}: ${why}`),
    delayed: (of, channel, why) => this.write(`delayed ${of.subject} ${channel}: ${why}`),
  };
}

const HANGS = (): Promise<void> => new Promise(() => undefined);
const DOWN = (): Promise<void> => Promise.reject(new Error('connect ECONNREFUSED'));
const REFUSES = (): Promise<void> => Promise.reject(new NoticeRefused('no', { cause: new Error('550') }));

/** Waits until it is told to stop. */
function untilStopped(_: number, signal: AbortSignal): Promise<void> {
  return new Promise((_resolve, reject) => {
    signal.addEventListener('abort', () => reject(new Error('aborted')), { once: true });
  });
}

const NO_WAIT = (): Promise<void> => Promise.resolve();

describe('a channel', () => {
  test('sends in order, one after another', async () => {
    const diary = new Diary();
    let open = 0;
    const deliver = async (): Promise<void> => {
      open += 1;
      expect(open).toBe(1);
      await Promise.resolve();
      open -= 1;
    };
    await using channel = new NoticeChannel(
      () => deliver,
      () => 1000,
      diary.channel,
      () => 0,
      NO_WAIT,
    );
    for (const subject of ['a', 'b', 'c']) channel.push(notice({ subject }));
    expect(await diary.until(3)).toEqual(['sent a', 'sent b', 'sent c']);
    channel.push(notice({ subject: 'd' }));
    expect(await diary.until(4)).toContain('sent d');
  });

  test('tries again with growing pauses, and gives up after an hour', async () => {
    const diary = new Diary();
    let now = 0;
    const pauses: number[] = [];
    const pause = async (ms: number): Promise<void> => {
      pauses.push(ms);
      now += ms;
    };
    await using channel = new NoticeChannel(
      () => DOWN,
      () => 1000,
      diary.channel,
      () => now,
      pause,
    );
    channel.push(notice({ subject: 'a' }));
    while (!diary.lines.at(-1)?.startsWith('lost')) await diary.until(diary.lines.length + 1);
    expect(pauses.slice(0, 8)).toEqual([5000, 10_000, 20_000, 40_000, 80_000, 160_000, 300_000, 300_000]);
    expect(diary.lines.at(-1)).toBe('lost a: connect ECONNREFUSED');
    expect(now).toBeGreaterThanOrEqual(GIVE_UP_MS);
    expect(now).toBeLessThan(GIVE_UP_MS + 300_000);
  });

  test('after a success the pauses begin anew, and nothing is lost or doubled', async () => {
    const diary = new Diary();
    const answers = [new Error('down'), new Error('down'), null, new Error('down'), null];
    const pauses: number[] = [];
    const deliver = async (): Promise<void> => {
      const answer = answers.shift();
      if (answer instanceof Error) throw answer;
    };
    const pause = async (ms: number): Promise<void> => void pauses.push(ms);
    await using channel = new NoticeChannel(
      () => deliver,
      () => 1000,
      diary.channel,
      () => 0,
      pause,
    );
    channel.push(notice({ subject: 'a' }));
    channel.push(notice({ subject: 'b' }));
    await diary.until(5);
    expect(diary.lines.filter((line) => line.startsWith('sent'))).toEqual(['sent a', 'sent b']);
    expect(pauses).toEqual([5000, 10_000, 5000]);
  });

  test('what is refused for good is not tried again', async () => {
    const diary = new Diary();
    await using channel = new NoticeChannel(
      () => REFUSES,
      () => 1000,
      diary.channel,
      () => 0,
      NO_WAIT,
    );
    channel.push(notice({ subject: 'a' }));
    expect(await diary.until(1)).toEqual(['lost a: no: 550']);
  });

  test('whoever takes too long is not waited for, even when he ignores the signal', async () => {
    const diary = new Diary();
    const { promise: paused, resolve } = Promise.withResolvers<void>();
    const pause = async (): Promise<void> => {
      resolve();
      await new Promise(() => undefined);
    };
    const channel = new NoticeChannel(
      () => HANGS,
      () => 20,
      diary.channel,
      () => 0,
      pause,
    );
    channel.push(notice({ subject: 'a' }));
    await paused;
    expect(diary.lines[0]).toMatch(/^delayed a: .*timeout, 5000$/);
  });

  test('as many as wait, and one more', async () => {
    const diary = new Diary();
    const gate = Promise.withResolvers<void>();
    await using channel = new NoticeChannel(
      () => () => gate.promise,
      () => 60_000,
      diary.channel,
      () => 0,
      NO_WAIT,
    );
    for (let index = 0; index < QUEUE_LIMIT; index++) channel.push(notice({ subject: `${index}` }));
    expect(diary.lines).toEqual([]);
    channel.push(notice({ subject: 'more' }));
    expect(diary.lines).toEqual([`lost more: ${QUEUE_LIMIT} notices wait already`]);
    gate.resolve();
    await diary.until(QUEUE_LIMIT + 1);
  });

  test('at the end what waits is tried once more, and what comes later is lost', async () => {
    const diary = new Diary();
    let attempts = 0;
    const deliver = async (): Promise<void> => {
      attempts += 1;
      if (attempts === 1) throw new Error('down');
    };
    const channel = new NoticeChannel(
      () => deliver,
      () => 1000,
      diary.channel,
      () => 0,
      untilStopped,
    );
    channel.push(notice({ subject: 'a' }));
    channel.push(notice({ subject: 'b' }));
    await diary.until(1);
    await channel[Symbol.asyncDispose]();
    expect(diary.lines).toEqual(['delayed a: down, 5000', 'sent a', 'sent b']);
    channel.push(notice({ subject: 'c' }));
    expect(diary.lines.at(-1)).toBe('lost c: the process stops');
  });

  test('a delivery that hangs does not hold up the end', async () => {
    const diary = new Diary();
    const channel = new NoticeChannel(
      () => HANGS,
      () => 60_000,
      diary.channel,
      () => 0,
      NO_WAIT,
    );
    channel.push(notice({ subject: 'a' }));
    await channel[Symbol.asyncDispose]();
    expect(diary.lines).toEqual(['lost a: the process stops']);
  });
});

describe('the notifier', () => {
  const OPTIONS = { mail: null, webhook: null, timeoutMs: 1000, repeatMs: HOUR, perHour: 60 } as const;

  test('without channels a notice is told to the log alone', () => {
    const diary = new Diary();
    openNotifier(OPTIONS, new FakeClock(), diary.notifier).notify(notice({ subject: 'a' }));
    expect(diary.lines).toEqual(['told a']);
  });

  test('the same is told once within the time, other things about the subject go through, up to a limit', () => {
    const diary = new Diary();
    const clock = new FakeClock();
    const notifier = openNotifier(OPTIONS, clock, diary.notifier);
    const tell = (text: string, subject = 'a'): void => notifier.notify(notice({ subject, text }));
    tell('0');
    tell('0');
    for (let text = 1; text <= SUBJECT_LIMIT; text++) tell(`${text}`);
    tell('0', 'b');
    notifier.notify(notice({ subject: 'a', text: '0', event: 'quota' }));
    expect(diary.lines).toEqual([
      'told a',
      'repeated a',
      ...Array<string>(SUBJECT_LIMIT - 1).fill('told a'),
      'repeated a',
      'told b',
      'told a',
    ]);
    clock.time += HOUR - 1;
    tell('0');
    expect(diary.lines.at(-1)).toBe('repeated a');
    clock.time += 1;
    tell('0');
    expect(diary.lines.at(-1)).toBe('told a');
  });

  test('no more than so many within an hour', () => {
    const diary = new Diary();
    const clock = new FakeClock();
    const notifier = openNotifier({ ...OPTIONS, perHour: 3 }, clock, diary.notifier);
    for (let index = 0; index < 5; index++) notifier.notify(notice({ subject: `${index}` }));
    expect(diary.lines).toEqual(['told 0', 'told 1', 'told 2', 'too-many 3', 'too-many 4']);
    clock.time += HOUR;
    notifier.notify(notice({ subject: '3' }));
    expect(diary.lines.at(-1)).toBe('told 3');
  });

  test('subjects are remembered up to a limit', () => {
    const diary = new Diary();
    const notifier = openNotifier({ ...OPTIONS, perHour: 10_000 }, new FakeClock(), diary.notifier);
    for (let index = 0; index <= REMEMBERED; index++) notifier.notify(notice({ subject: `${index}` }));
    notifier.notify(notice({ subject: '1' }));
    expect(diary.lines.at(-1)).toBe('repeated 1');
    notifier.notify(notice({ subject: '0' }));
    expect(diary.lines.at(-1)).toBe('told 0');
  });

  test('whatever comes, no subject and no hour has more than its share', () => {
    fc.assert(
      fc.property(
        fc.array(
          fc.record({ subject: fc.constantFrom('a', 'b'), text: fc.string(), wait: fc.nat(HOUR / 4) }),
        ),
        (events) => {
          const diary = new Diary();
          const clock = new FakeClock();
          const notifier = openNotifier({ ...OPTIONS, perHour: 6 }, clock, diary.notifier);
          const told = new Map<number, number>();
          for (const { subject, text, wait } of events) {
            clock.time += wait;
            const before = diary.lines.length;
            notifier.notify(notice({ subject, text }));
            if (diary.lines[before]?.startsWith('told') !== true) continue;
            const hour = Math.floor(clock.elapsed() / HOUR);
            told.set(hour, (told.get(hour) ?? 0) + 1);
          }
          expect(Math.max(0, ...told.values())).toBeLessThanOrEqual(6);
        },
      ),
    );
  });

  test('a channel that a reload takes away loses what waits, and says so', async () => {
    const diary = new Diary();
    const webhook = { url: 'http://127.0.0.1:1/', header: null, hostname: 'mx.example' };
    const clock = new FakeClock();
    let notifier = openNotifier({ ...OPTIONS, webhook }, clock, diary.notifier, async () => {
      notifier.configure(OPTIONS);
    });
    notifier.notify(notice({ subject: 'a' }));
    const lines = await diary.until(3);
    expect(lines[1]).toMatch(/^delayed a webhook: fetch failed: /);
    expect(lines[2]).toBe('lost a webhook: the configuration has no such channel any more');
    notifier.notify(notice({ subject: 'b' }));
    expect(diary.lines.slice(3)).toEqual(['told b']);
  });
});

describe('a mail', () => {
  const MAIL = {
    to: ['postmaster@olimpus.example'],
    from: 'postern@olimpus.example',
    host: '127.0.0.1',
    port: 25,
    hostname: 'mx.olimpus.example',
  };

  test('is addressed, marked as automatic, and says what happened and what to do', async () => {
    const text = (await composeNotice(notice(), MAIL)).toString('latin1');
    const end = text.indexOf('\r\n\r\n');
    const [header, body] = [text.slice(0, end), text.slice(end)];
    const fields = header.replaceAll(/\r\n[ \t]+/g, ' ').split('\r\n');
    expect(fields).toContain('From: Postern <postern@olimpus.example>');
    expect(fields).toContain('To: postmaster@olimpus.example');
    expect(fields).toContain('Auto-Submitted: auto-generated');
    expect(fields).toContain('Date: Sat, 21 Nov 2026 09:00:00 +0000');
    expect(fields.find((field) => field.startsWith('Subject:'))).toBe(
      "Subject: [Postern] limit: limit 'x': 100 of 100 messages within 1h used by zeus@olimpus.example",
    );
    expect(fields.find((field) => field.startsWith('Message-ID:'))).toMatch(/@olimpus\.example>$/);
    expect(body).toContain('  postern limits reset --limit x\r\n');
    expect(body).toMatch(/^login +-\r\n/m);
    expect(body).toMatch(/^used +100\r\n/m);
  });

  test('whatever a remote party chose, there is no field, no line and no byte of its own', async () => {
    await fc.assert(
      fc.asyncProperty(fc.string({ unit: 'binary', maxLength: 300 }), async (evil) => {
        const values = notice({
          subject: `${evil}\r\nBcc: x@y`,
          text: `${evil}\r\nBcc: x@y`,
          facts: { login: `${evil}\n\n.\r\nMAIL FROM:<x>` },
        });
        const text = (await composeNotice(values, MAIL)).toString('latin1');
        const end = text.indexOf('\r\n\r\n');
        const names = text
          .slice(0, end)
          .replaceAll(/\r\n[ \t]+/g, ' ')
          .split('\r\n')
          .map((field) => field.split(':', 1)[0]);
        expect(new Set(names)).toEqual(
          new Set([
            'Auto-Submitted',
            'Content-Transfer-Encoding',
            'Content-Type',
            'Date',
            'From',
            'MIME-Version',
            'Message-ID',
            'Subject',
            'To',
          ]),
        );
        expect(text).toMatch(/^[\x20-\x7e\r\n]*$/);
        expect(text.replaceAll('\r\n', '')).not.toMatch(/[\r\n]/);
        expect(text).not.toMatch(/^MAIL FROM/m);
      }),
      { numRuns: 100 },
    );
  });

  test.each<[name: string, script: readonly string[], error: RegExp]>([
    ['refuses for now', ['451 4.3.0 busy'], /busy/],
    ['refuses for good', ['550 5.7.1 no'], /^Error: the mail server refuses the notice|NoticeRefused/],
  ])('a server that %s', async (_, [answer = ''], error) => {
    await using server = await smtpServer(answer);
    const deliver = mailDelivery({ ...MAIL, port: server.port });
    await expect(deliver(notice(), AbortSignal.timeout(5000))).rejects.toThrow(
      answer.startsWith('5') ? NoticeRefused : error,
    );
  });

  test('a server that says nothing is given up with the signal', async () => {
    await using server = await smtpServer(null);
    const deliver = mailDelivery({ ...MAIL, port: server.port });
    await expect(deliver(notice(), AbortSignal.timeout(50))).rejects.toThrow(
      `no answer in time from 127.0.0.1:${server.port}`,
    );
    await server.closed;
  });

  test('goes out with an empty envelope sender', async () => {
    await using server = await smtpServer('250 2.1.0 ok');
    await mailDelivery({ ...MAIL, port: server.port })(notice(), AbortSignal.timeout(5000));
    expect(server.commands.find((line) => line.startsWith('MAIL FROM'))).toMatch(/^MAIL FROM:<>(?: |$)/);
    expect(server.commands).toContain('RCPT TO:<postmaster@olimpus.example>');
  });
});

describe('a webhook', () => {
  test('gets JSON by POST, with the field of the secret', async () => {
    await using server = await webServer((response) => response.writeHead(204).end());
    const header = { name: 'Authorization', value: 'Bearer ambrosia' };
    await webhookDelivery({ url: server.url, header, hostname: 'mx.example' })(
      notice(),
      AbortSignal.timeout(5000),
    );
    expect(server.requests).toMatchObject([
      { method: 'POST', headers: { authorization: 'Bearer ambrosia', 'content-type': 'application/json' } },
    ]);
    expect(JSON.parse(server.requests[0]?.body ?? '')).toEqual({
      event: 'limit',
      time: '2026-11-21T09:00:00.000Z',
      host: 'mx.example',
      subject: 'zeus@olimpus.example',
      text: notice().text,
      advice: notice().advice,
      facts: notice().facts,
    });
  });

  test.each([
    [301, true],
    [307, true],
    [400, true],
    [404, true],
    [408, false],
    [429, false],
    [500, false],
    [503, false],
  ])('that answers %i: refused for good is %s', async (status, forGood) => {
    await using server = await webServer((response) =>
      response.writeHead(status, { location: '/other' }).end('no'),
    );
    const error: unknown = await webhookDelivery({ url: server.url, header: null, hostname: 'mx' })(
      notice(),
      AbortSignal.timeout(5000),
    ).catch((caught: unknown) => caught);
    expect(error).toMatchObject({ message: `the webhook answered ${status}` });
    expect(error instanceof NoticeRefused).toBe(forGood);
    expect(server.requests).toHaveLength(1);
  });

  test('that never answers is given up with the signal; one that never stops talking is not listened to', async () => {
    await using silent = await webServer(() => undefined);
    const options = { header: null, hostname: 'mx' };
    await expect(
      webhookDelivery({ ...options, url: silent.url })(notice(), AbortSignal.timeout(50)),
    ).rejects.toThrow(/timeout/);
    await using endless = await webServer((response) => {
      response.writeHead(200);
      const talk = (): void => {
        while (response.write('x'.repeat(65_536))) {
          // until the socket is full
        }
      };
      response.on('drain', talk);
      talk();
    });
    await webhookDelivery({ ...options, url: endless.url })(notice(), AbortSignal.timeout(5000));
    expect(endless.requests).toHaveLength(1);
  });
});

interface WebRequest {
  readonly method: string | undefined;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

async function webServer(answer: (response: ServerResponse) => void) {
  const requests: WebRequest[] = [];
  const server = createServer((request, response) => {
    let body = '';
    request.setEncoding('utf8').on('data', (chunk: string) => (body += chunk));
    request.on('end', () => {
      requests.push({ method: request.method, headers: request.headers, body });
      answer(response);
    });
  });
  const port = await listening(server);
  return {
    url: `http://127.0.0.1:${port}/hook`,
    requests,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** Answers MAIL FROM with `answer`, everything else with success; null: says nothing at all. */
async function smtpServer(answer: string | null) {
  const commands: string[] = [];
  const closed = Promise.withResolvers<void>();
  const sockets = new Set<Socket>();
  const server = createTcpServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => undefined);
    socket.on('close', () => closed.resolve());
    if (answer === null) return;
    socket.write('220 test\r\n');
    let text = '';
    let data = false;
    socket.on('data', (chunk) => {
      text += chunk.toString('latin1');
      for (let end = text.indexOf('\r\n'); end !== -1; end = text.indexOf('\r\n')) {
        const line = text.slice(0, end);
        text = text.slice(end + 2);
        if (data) {
          if (line !== '.') continue;
          data = false;
          socket.write('250 2.0.0 queued\r\n');
          continue;
        }
        commands.push(line);
        data = line === 'DATA';
        socket.write(data ? '354 go on\r\n' : line.startsWith('MAIL') ? `${answer}\r\n` : '250 ok\r\n');
      }
    });
  });
  const port = await listening(server);
  return {
    port,
    commands,
    closed: closed.promise,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

function listening(server: ReturnType<typeof createTcpServer>): Promise<number> {
  return new Promise((resolve) => {
    server.listen(0, '127.0.0.1', () => {
      const address = server.address() satisfies AddressInfo | string | null;
      if (address === null || typeof address === 'string') throw new Error('no port');
      resolve(address.port);
    });
  });
}
