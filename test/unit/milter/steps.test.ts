import { expect, test } from 'vitest';

import { negotiate } from '../../../src/milter/negotiate.ts';
import { BEGIN, BODY, GO, HEADER, MESSAGE, rig } from './rig.ts';
import { ABORT, DATA, EOH, EOM, MAIL, OFFER_V2, OFFER_V6, packet, RCPT, TRACE } from './support.ts';

const STEPS = [MAIL, RCPT, DATA, HEADER, EOH, BODY];

test.each(STEPS.map((_, index) => index + 1))(
  'ABORT after step %i of a message, once and twice: nothing is answered, the next message is whole',
  async (count) => {
    for (const aborts of [1, 2]) {
      const { say, counted, tools } = await rig();
      await say(...BEGIN, ...STEPS.slice(0, count));
      for (let given = 0; given < aborts; given++) expect(await say(ABORT)).toBeNull();
      expect(await say(...MESSAGE, EOM)).toContain(TRACE);
      expect(await counted('aborted')).toBe(1);
      expect(await counted('accept')).toBe(1);
      expect(tools.store.decisions).toHaveLength(1);
    }
  },
);

test('RSET and a second HELO (STARTTLS) between messages of one session, and macros without any pair', async () => {
  const { say, counted } = await rig();
  const helo = packet('H', 'again.valhalla.example\0');
  await say(...BEGIN, ABORT, packet('D', 'H'), helo, ABORT);
  for (let message = 0; message < 3; message++) {
    expect(await say(packet('D', 'M'), ...MESSAGE, packet('D', 'E', 'i\0Q\0'), EOM, ABORT, ABORT)).toBeNull();
  }
  expect(await counted('accept')).toBe(3);
  expect(await counted('aborted')).toBe(0);
});

test('macros come before events that were declined, too, and those of single headers and body chunks', async () => {
  const { say, tools } = await rig();
  await say(...BEGIN, packet('D', 'U'), MAIL, RCPT, packet('D', 'T', 'i\0QID7\0'), DATA);
  await say(packet('D', 'L', 'i\0QID7\0'), HEADER, packet('D', 'N', 'i\0QID7\0'), EOH);
  await say(packet('D', 'B', 'i\0QID7\0'), BODY, packet('D', 'E', 'i\0QID7\0'), EOM);
  expect(tools.store.decisions.map(({ queueId }) => queueId)).toEqual(['QID7']);
});

test('neither symbol lists nor SKIP nor refused recipients are asked for, whatever is offered', async () => {
  const { answer } = negotiate({ version: 6, actions: 0x1ff, protocol: 0x1fffff });
  expect(answer.actions & 0x100).toBe(0); // SETSYMLIST
  expect(answer.protocol & 0x400).toBe(0); // SKIP
  expect(answer.protocol & 0x800).toBe(0); // RCPT_REJ
  // NOCONNECT to NOEOH, NODATA: every step that a fact comes with.
  expect(answer.protocol & 0x27f).toBe(0);
  for (const offer of [OFFER_V2, OFFER_V6]) {
    const { say } = await rig();
    // Three words, and no list behind them.
    expect(await say(offer)).toHaveLength(17);
  }
});

test('with version 2 each of many pieces of a message is answered once, in order', async () => {
  const { say } = await rig();
  await say(OFFER_V2, ...BEGIN.slice(1), MAIL, RCPT);
  for (let field = 0; field < 50; field++) expect(await say(HEADER)).toBe(GO);
  expect(await say(EOH)).toBe(GO);
  for (let piece = 0; piece < 50; piece++) expect(await say(BODY)).toBe(GO);
  expect(await say(EOM)).toContain(TRACE);
});

test('the reason of a quarantine is one line of no more than the 100 octets that Postfix shows', async () => {
  const { say, checks } = await rig();
  checks.message = () => Promise.resolve([{ code: 'spam.odd', detail: 'remote\r\ntext '.repeat(100) }]);
  const answer = await say(...BEGIN, ...MESSAGE, EOM);
  const reason = /q([^\0]*)\0/.exec(answer?.slice(answer.indexOf(`q`)) ?? '')?.[1] ?? '';
  expect(reason).toBe(`spam.odd (${TRACE})`);
  // The longest that a rule can be called, "unavailable:" and a name of 32 or "virus." and one of 40, leaves room.
  expect(`unavailable:${'x'.repeat(40)} (${TRACE})`.length).toBeLessThanOrEqual(100);
});
