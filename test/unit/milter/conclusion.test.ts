import { expect, test, vi } from 'vitest';

import type { Command } from '../../../src/milter/command.ts';
import { BEGIN, MESSAGE, rig } from './rig.ts';
import { metric } from '../../support/metric.ts';
import { ABORT, CONNECT, EOM, gate, MAIL, OFFER_V6, packet, RCPT, TRACE } from './support.ts';

test('an outcome that comes after ABORT is nobody’s', async () => {
  const { say, session, checks, tools, counted } = await rig();
  const slow = gate();
  const began = gate();
  checks.message = async (_, signal) => {
    began.open();
    signal.addEventListener('abort', slow.open);
    await slow.opened;
    return [{ code: 'spam.virus', detail: 'late' }];
  };
  await say(...BEGIN, ...MESSAGE);
  const end: Command = { kind: 'end-of-message', chunk: Buffer.alloc(0) };
  const answer = session.handle(end);
  await began.opened;
  session.abort();
  expect(await answer).toBeNull();
  expect(tools.store.decisions).toEqual([]);
  expect(await counted('aborted')).toBe(1);
  checks.message = () => Promise.resolve([]);
  expect(await say(...MESSAGE, EOM)).toContain(TRACE);
});

test('the verdict is the mildest of the recipients’, with the rules that it came from', async () => {
  const { say, checks, tools } = await rig(
    '[[override]]\nrecipients = ["hera@olimpus.example"]\n[override.rules]\n"spam.virus" = "ignore"\n',
  );
  checks.message = () => Promise.resolve([{ code: 'spam.virus', detail: 'EICAR' }]);
  expect(await say(...BEGIN, ...MESSAGE, EOM)).toContain('550 5.7.1');
  expect(await say(ABORT, MAIL, RCPT, packet('R', '<hera@olimpus.example>\0'), EOM)).toContain(TRACE);
  expect(tools.store.decisions.map(({ verdict }) => verdict)).toEqual(['reject', 'accept']);
});

test('findings about one recipient are weighed for that one', async () => {
  const { say, checks } = await rig();
  checks.message = () => Promise.resolve([{ code: 'spam.virus', detail: 'EICAR', recipient: 0 }]);
  expect(await say(...BEGIN, ...MESSAGE, EOM)).toContain('550 5.7.1');
  expect(await say(ABORT, MAIL, RCPT, RCPT, EOM)).not.toContain('550');
});

test('discard', async () => {
  const { say, checks } = await rig();
  checks.message = () => Promise.resolve([{ code: 'spam.noise', detail: '' }]);
  expect(await say(...BEGIN, ...MESSAGE, EOM)).toBe(packet('d').toString('latin1'));
});

test('what was found is kept for the LMTP side when the message goes on, and has a queue id', async () => {
  const { say, checks, tools } = await rig();
  const scan = { score: 1, required: 5, rules: ['A'], fields: [] };
  checks.message = () => Promise.resolve([{ code: 'spam.scored', detail: '', score: 1, scan }]);
  const queued = packet('D', 'E', 'i\0QID1\0');
  await say(...BEGIN, ...MESSAGE, EOM, ...MESSAGE, queued, EOM);
  expect(tools.store.kept).toMatchObject([
    {
      trace: TRACE,
      queueId: 'QID1',
      facts: { direction: 'in', outcomes: [{}, { findings: [{ code: 'spam.scored', scan }] }] },
    },
  ]);
  checks.message = () => Promise.resolve([{ code: 'spam.virus', detail: '', scan }]);
  await say(...MESSAGE, queued, EOM);
  expect(tools.store.kept).toHaveLength(1);
});

test('mail does not stop for the record', async () => {
  const { say, checks, tools } = await rig();
  const broken = new Error('disk full');
  tools.store.joinTrace = () => Promise.reject(broken);
  const scan = { score: 1, required: 5, rules: ['A'], fields: [] };
  checks.message = () => Promise.resolve([{ code: 'spam.scored', detail: '', score: 1, scan }]);
  const answer = await say(...BEGIN, ...MESSAGE, packet('D', 'E', 'i\0QID1\0'), EOM);
  expect(answer).toMatch(/X-Postern-Trace\0 [a-z2-7]{16}\0/);
  expect(answer).not.toContain(TRACE);
  expect(tools.lines.filter(({ level }) => level === 'warn')).toHaveLength(1);
  expect(await metric(tools.registry, 'postern_milter_errors_total', { kind: 'store' })).toBe(1);
});

test('a store that does not answer is waited for two seconds', async () => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
  try {
    const { say, tools } = await rig();
    tools.store.joinTrace = () => {
      queueMicrotask(() => vi.advanceTimersByTime(2000));
      return new Promise(() => {});
    };
    expect(await say(...BEGIN, ...MESSAGE, EOM)).toContain('X-Postern-Trace');
    expect(tools.lines).toContainEqual(expect.objectContaining({ level: 'warn' }));
  } finally {
    vi.useRealTimers();
  }
});

test('at the deadline of the whole answer the checks without a result are unavailable', async () => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
  try {
    const { say, checks, tools } = await rig('milter.deadline = "30s"');
    checks.message = () => {
      queueMicrotask(() => vi.advanceTimersByTime(30_000));
      return new Promise(() => {});
    };
    expect(await say(...BEGIN, ...MESSAGE, EOM)).toContain('451 4.7.0');
    expect(tools.store.decisions[0]).toMatchObject({ verdict: 'defer', rule: 'unavailable:spam' });
    expect(tools.lines.at(-1)).toMatchObject({ findings: ['unavailable:spam'] });
  } finally {
    vi.useRealTimers();
  }
});

test('an error that nobody expected defers the message', async () => {
  const { say, tools, counted } = await rig();
  tools.store.record = () => {
    throw new Error('out of memory');
  };
  expect(await say(...BEGIN, ...MESSAGE, EOM)).toBe(packet('t').toString('latin1'));
  expect(await counted('defer')).toBe(1);
  expect(await counted('accept')).toBe(0);
  expect(tools.lines).toContainEqual(
    expect.objectContaining({ level: 'error', msg: 'message could not be judged' }),
  );
});

test('one log line for a message, with remote text made harmless', async () => {
  const { say, tools } = await rig();
  const many = Array.from({ length: 25 }, (_, index) => packet('R', `<u${index}@olimpus.example>\0`));
  await say(OFFER_V6, CONNECT, packet('H', 'a\x9b31m\nb\0'), packet('M', '<x\r\n@y>\0'), ...many, EOM);
  expect(tools.lines).toHaveLength(1);
  const [line] = tools.lines;
  expect(line).toMatchObject({
    level: 'info',
    msg: 'message judged',
    daemon: 'milter',
    trace: TRACE,
    qid: null,
    client: '192.0.2.20',
    helo: 'a?31m?b',
    from: 'x??@y',
    recipients: 25,
    verdict: 'accept',
    findings: [],
  });
  expect(line?.['to']).toHaveLength(20);
});
