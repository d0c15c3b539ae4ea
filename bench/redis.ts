// What one message of many hosts takes in Redis, of state and of record: octets and time; and how long the record is searched.
//   node bench/redis.ts [--messages N]

import { parseArgs } from 'node:util';

import { openRedisState } from '../src/adapters/state-redis.ts';
import { openRedisStore } from '../src/adapters/store-redis.ts';
import type { Decision, HistoryFilter } from '../src/ports/store.ts';
import type { Outcome } from '../src/verdict/finding.ts';
import { startRedis, type RedisServer } from '../test/support/neighbours/redis.ts';
import { PLAIN_REDIS } from '../test/support/redis-options.ts';

const { values } = parseArgs({ options: { messages: { type: 'string', default: '100000' } } });
const messages = Number(values.messages);
/** Decisions of one message: policyd's, the milter's, lmtp-filter's. */
const DECISIONS = 3;
const AT_ONCE = 100;
const BEGIN = Date.now() - messages * DECISIONS;
let recorded = 0;

const failed = (error: unknown): never => {
  throw error;
};

await using redis = await startRedis();
const options = {
  address: { kind: 'tcp', host: redis.host, port: redis.port },
  ...PLAIN_REDIS,
  timeoutMs: 10_000,
} as const;
await using state = await openRedisState(options, { up: () => undefined, down: failed });
await using store = await openRedisStore(
  {
    redis: options,
    host: 'mx1.example.org',
    most: messages * DECISIONS * 2,
    keepMs: 7_200_000,
  },
  { now: () => Date.now(), elapsed: () => performance.now() },
  { writeFailed: failed, lost: failed, tracesLost: failed },
);

const hit = (number: number, enforced: boolean): Promise<unknown> =>
  state.hit([
    {
      limit: 'messages',
      key: `user${number}@example.org`,
      algorithm: 'window',
      most: 1000,
      periodMs: 86_400_000,
      cost: 1,
      enforced,
    },
  ]);
await measured('a triplet', messages, async (number) => {
  const triplet = {
    network: `10.${number >> 16}.${(number >> 8) & 255}.0/24`,
    sender: `s${number}@example.com`,
    recipient: `r${number}@example.org`,
  };
  await state.greylist(triplet, {
    delayMs: 300_000,
    windowMs: 86_400_000,
    ageMs: 86_400_000,
    clientPasses: 5,
  });
});
await measured('a new counter of a limit', messages, (number) => hit(number, true));
await measured('a hit of a known counter', messages, (number) => hit(number, true));
await measured('a reservation', messages, (number) =>
  state.reserve(
    traceOf(number),
    [{ mailbox: `user${number}@example.org`, bytes: 12_345, used: 0, limit: 1e9, grace: 0 }],
    600_000,
  ),
);
await measured('a reservation that is settled', messages, (number) =>
  state.settle(traceOf(number), `user${number}@example.org`, 1),
);
await measured('a recipient that an account wrote to', messages, (number) =>
  state.seen([
    {
      kind: 'recipient',
      subject: `user${number % (messages / 100)}@example.org`,
      value: `r${number}@example.com`,
      windowMs: 30 * 86_400_000,
    },
  ]),
);
await measured('the trace of a message', messages, async (number) => {
  const keys = { session: `192.0.2.${number % 256}:${number}`, sender: `s${number}@example.com` };
  await store.openTrace({ ...keys, instance: `${number}.a`, queueId: null }, traceOf(number));
  await store.joinTrace({ ...keys, instance: null, queueId: `4gX${number}` }, 'fresh');
});
await measured('what the milter found', messages, async (number) => {
  store.keepFacts(traceOf(number), `4gX${number}`, { direction: 'in', outcomes: outcomes(true) });
  if (number % AT_ONCE === 0) await store.flush();
});
for (const daemon of ['policyd', 'milter', 'lmtp-filter'] as const) {
  await measured(`a decision of ${daemon}`, messages, async (number) => {
    store.record(decisionOf(daemon, number));
    if (number % AT_ONCE === 0) await store.flush();
  });
}

const middle = Math.floor(messages / 2);
const questions: readonly [string, Omit<HistoryFilter, 'limit'>][] = [
  ['by trace', { trace: traceOf(middle) }],
  ['by queue id', { queueId: `4gX${middle}` }],
  ['by recipient', { recipient: `r${middle}@example.org` }],
  ['by a queue id that is not there', { queueId: 'none' }],
  ['the newest', {}],
  ['by a rule that is rare', { rule: 'spf.fail' }],
  ['what was refused before anything', { verdict: 'reject', until: BEGIN }],
];
for (const [name, filter] of questions) {
  const times: number[] = [];
  for (let turn = 0; turn < 20; turn++) {
    const begin = performance.now();
    await store.history({ ...filter, limit: 50 });
    times.push(performance.now() - begin);
  }
  times.sort((one, other) => one - other);
  print(`search ${name}, p50 / longest`, `${ms(times[10])} / ${ms(times.at(-1))}`);
}
const slowest = await redis.command('SLOWLOG', 'GET', '1');
print('longest script', `${(Number(slowest[2] ?? 0) / 1000).toFixed(1)} ms`);
const begin = performance.now();
const gone = await store.expire(BEGIN + DECISIONS * middle);
print('expiry', `${gone} decisions in ${ms(performance.now() - begin)}`);

async function measured(
  name: string,
  count: number,
  one: (number: number) => Promise<unknown>,
): Promise<void> {
  const before = await usage(redis);
  const cpu = process.cpuUsage();
  const from = performance.now();
  for (let number = 0; number < count; number += AT_ONCE) {
    const some = Array.from({ length: Math.min(AT_ONCE, count - number) }, (_, index) => number + index);
    await Promise.all(some.map(one));
  }
  await store.flush();
  const took = performance.now() - from;
  const { user, system } = process.cpuUsage(cpu);
  const after = await usage(redis);
  print(`${name}: octets in Redis`, ((after.octets - before.octets) / count).toFixed(0));
  print(`${name}: octets sent to it`, ((after.received - before.received) / count).toFixed(0));
  print(`${name}: CPU of Redis`, `${(((after.cpu - before.cpu) * 1e6) / count).toFixed(1)} µs`);
  print(`${name}: CPU of Postern`, `${((user + system) / count).toFixed(1)} µs`);
  print(`${name}: a second`, (count / (took / 1000)).toFixed(0));
}

interface Usage {
  readonly octets: number;
  readonly received: number;
  /** Seconds. */
  readonly cpu: number;
}

async function usage(server: RedisServer): Promise<Usage> {
  const lines = [...(await server.command('INFO', 'everything'))];
  const value = (name: string): number =>
    Number(lines.find((line) => line.startsWith(`${name}:`))?.slice(name.length + 1));
  return {
    octets: value('used_memory'),
    received: value('total_net_input_bytes'),
    cpu: value('used_cpu_user') + value('used_cpu_sys'),
  };
}

function traceOf(number: number): string {
  return `trace${number}`.padEnd(16, 'a');
}

function decisionOf(daemon: Decision['daemon'], number: number): Decision {
  const refused = number % 10 === 0;
  return {
    trace: traceOf(number),
    time: BEGIN + (recorded += 1),
    daemon,
    stage: daemon === 'policyd' ? 'rcpt' : 'message',
    direction: 'in',
    queueId: daemon === 'policyd' ? null : `4gX${number}`,
    client: `192.0.2.${number % 256}`,
    helo: `mail${number % 1000}.example.com`,
    login: null,
    sender: `sender${number}@example${number % 5000}.com`,
    recipients: [`r${number}@example.org`],
    messageId:
      daemon === 'policyd' ? null : `<20261121090000.${number}.4711@mail${number % 1000}.example.com>`,
    size: 12_345,
    verdict: refused ? 'reject' : 'accept',
    rule: refused ? 'spf.fail' : 'default',
    why: refused ? '192.0.2.7 is not allowed to send for example.com' : '',
    score: daemon === 'policyd' ? null : -1.9,
    tagged: false,
    reply: refused ? `550 5.7.23 SPF says no (${traceOf(number)})` : 'accept',
    shadow: [],
    outcomes: outcomes(daemon !== 'policyd'),
    elapsed: 150.2,
  };
}

/** What the checks of an ordinary message find: at RCPT, or of the whole message. */
function outcomes(whole: boolean): readonly Outcome[] {
  const spf: Outcome = {
    kind: 'found',
    check: 'spf',
    findings: [
      {
        code: 'spf.pass',
        detail: '192.0.2.7 is allowed by example.com',
        auth: { method: 'spf', result: 'pass', properties: [['smtp.mailfrom', 'ada@example.com']] },
      },
    ],
    elapsed: 12.12,
  };
  if (!whole)
    return [
      spf,
      ...['greylist', 'limits'].map((check): Outcome => ({
        kind: 'found',
        check,
        findings: [],
        elapsed: 0.3,
      })),
    ];
  const dkim: Outcome = {
    kind: 'found',
    check: 'dkim',
    findings: [
      {
        code: 'dkim.pass',
        detail: 'example.com s2048 rsa-sha256',
        auth: {
          method: 'dkim',
          result: 'pass',
          comment: '2048-bit key',
          properties: [
            ['header.d', 'example.com'],
            ['header.s', 's2048'],
            ['header.a', 'rsa-sha256'],
            ['header.b', 'AbCdEfGh'],
          ],
        },
      },
    ],
    elapsed: 3.4,
  };
  const dmarc: Outcome = {
    kind: 'found',
    check: 'dmarc',
    findings: [
      {
        code: 'dmarc.pass',
        detail: 'aligned with example.com',
        auth: {
          method: 'dmarc',
          result: 'pass',
          properties: [['header.from', 'example.com']],
          comment: 'p=reject',
        },
      },
    ],
    elapsed: 1.1,
  };
  const spam: Outcome = {
    kind: 'found',
    check: 'spam',
    findings: [
      {
        code: 'spam.scored',
        detail: '-1.9 of 5',
        score: -1.9,
        scan: {
          score: -1.9,
          required: 5,
          rules: ['BAYES_00', 'DKIM_SIGNED', 'DKIM_VALID', 'SPF_PASS', 'HTML_MESSAGE', 'RCVD_IN_DNSWL_NONE'],
          fields: [
            { name: 'X-Spam-Checker-Version', value: ' SpamAssassin 4.0.1 (2024-03-25) on mx1.example.org' },
            {
              name: 'X-Spam-Status',
              value: ' No, score=-1.9 required=5.0 tests=BAYES_00,DKIM_SIGNED,DKIM_VALID',
            },
          ],
        },
      },
    ],
    elapsed: 120.22,
  };
  const empty = ['arc', 'virus'].map((check): Outcome => ({
    kind: 'found',
    check,
    findings: [],
    elapsed: 0.1,
  }));
  return [spf, dkim, dmarc, ...empty, spam];
}

function ms(time: number | undefined): string {
  return `${(time ?? NaN).toFixed(1)} ms`;
}

function print(what: string, figure: string): void {
  console.log(`${what.padEnd(52)} ${figure}`);
}
