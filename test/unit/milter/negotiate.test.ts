import { expect, test } from 'vitest';

import { expectsReply, negotiate } from '../../../src/milter/negotiate.ts';
import { ProtocolError } from '../../../src/milter/command.ts';

const NEEDED = 0x001 | 0x010 | 0x020; // ADDHDRS, CHGHDRS, QUARANTINE
/** NR_HDR, NOUNKNOWN, NR_CONN to NR_RCPT, NR_EOH, NR_BODY, HDR_LEADSPC. */
const FULL = 0x1cf180;

test.each([
  ['Postfix, milter_protocol = 6', { version: 6, actions: 0x1ff, protocol: 0x1fffff }, [6, FULL], true],
  ['Postfix, milter_protocol = 4', { version: 4, actions: 0x1ff, protocol: 0x37f }, [4, 0x100], false],
  ['Postfix, milter_protocol = 3', { version: 3, actions: 0x1ff, protocol: 0x17f }, [3, 0x100], false],
  ['Postfix, milter_protocol = 2', { version: 2, actions: 0x1ff, protocol: 0x7f }, [2, 0], false],
  ['a newer version', { version: 7, actions: 0xfff, protocol: 0x3fffffff }, [6, FULL], true],
  [
    'version 2 with bits that it does not have',
    { version: 2, actions: 0x1ff, protocol: 0x1fffff },
    [2, 0],
    false,
  ],
  ['version 6 with no steps', { version: 6, actions: 0x1ff, protocol: 0 }, [6, 0], false],
  [
    'version 6 with some steps',
    { version: 6, actions: NEEDED, protocol: 0x80 | 0x100000 },
    [6, 0x100080],
    true,
  ],
] as const)('%s', (_, offer, [version, protocol], leadingSpace) => {
  const terms = negotiate(offer);
  expect(terms).toEqual({
    answer: { version, actions: NEEDED, protocol },
    leadingSpace,
    recipientParameters: false,
  });
  expect(terms.answer.actions & ~offer.actions).toBe(0);
  expect(terms.answer.protocol & ~offer.protocol).toBe(0);
});

test('DATA is always answered: without it Postfix on TCP waits 40 ms at the first header', () => {
  const { answer } = negotiate({ version: 6, actions: 0x1ff, protocol: 0xffffffff });
  expect(answer.protocol & 0x200).toBe(0); // NODATA
  expect(answer.protocol & 0x10000).toBe(0); // NR_DATA
});

test.each([
  ['version 1', { version: 1, actions: 0x1ff, protocol: 0x7f }],
  ['version 0', { version: 0, actions: 0x1ff, protocol: 0x7f }],
  ['no ADDHDRS', { version: 6, actions: 0x1fe, protocol: 0x1fffff }],
  ['no CHGHDRS', { version: 6, actions: 0x1ef, protocol: 0x1fffff }],
  ['no QUARANTINE', { version: 6, actions: 0x1df, protocol: 0x1fffff }],
])('%s leaves no common ground', (_, offer) => {
  expect(() => negotiate(offer)).toThrow(
    expect.objectContaining({ name: 'ProtocolError', kind: 'negotiation' }),
  );
  expect(() => negotiate(offer)).toThrow(ProtocolError);
});

test('which events are answered follows from the terms', () => {
  const silent = negotiate({ version: 6, actions: 0x1ff, protocol: 0x1fffff });
  const talking = negotiate({ version: 2, actions: 0x1ff, protocol: 0x7f });
  for (const event of ['connect', 'helo', 'mail', 'rcpt', 'header', 'end-of-headers', 'body'] as const) {
    expect(expectsReply(silent, event)).toBe(false);
    expect(expectsReply(talking, event)).toBe(true);
  }
});

test('the body may be replaced where that is wanted, and only there', () => {
  const offer = { version: 6, actions: 0x1ff, protocol: 0x1fffff };
  expect(negotiate(offer, { replacesBody: true }).answer.actions).toBe(NEEDED | 0x002); // CHGBODY
  expect(negotiate(offer, { replacesBody: false }).answer.actions).toBe(NEEDED);
  expect(() => negotiate({ ...offer, actions: 0x1fd }, { replacesBody: true })).toThrow(ProtocolError);
  expect(negotiate({ ...offer, actions: 0x1fd }, { replacesBody: false }).answer.actions).toBe(NEEDED);
});

test('recipients may be added where that is wanted, with parameters where the MTA takes them', () => {
  const offer = { version: 6, actions: 0x1ff, protocol: 0x1fffff };
  const wishes = { addsRecipients: true };
  expect(negotiate(offer, wishes)).toMatchObject({
    answer: { actions: NEEDED | 0x084 },
    recipientParameters: true,
  });
  // ADDRCPT without ADDRCPT_PAR
  expect(negotiate({ ...offer, actions: 0x17f }, wishes)).toMatchObject({
    answer: { actions: NEEDED | 0x004 },
    recipientParameters: false,
  });
  expect(() => negotiate({ ...offer, actions: 0x1fb }, wishes)).toThrow(ProtocolError);
  expect(negotiate(offer)).toMatchObject({ answer: { actions: NEEDED }, recipientParameters: false });
});
