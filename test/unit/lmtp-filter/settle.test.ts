import { pino } from 'pino';
import { beforeEach, describe, expect, test } from 'vitest';

import type { CheckTools } from '../../../src/checks/check.ts';
import type { Answered } from '../../../src/lmtp-filter/record.ts';
import { LINGER_MS } from '../../../src/checks/quota-settle.ts';
import { settleQuota } from '../../../src/lmtp-filter/settle.ts';
import { settingsKey } from '../../../src/mail/address.ts';
import type { Destination } from '../../../src/ports/directory.ts';
import { checkTools, NO_DIRECTORY, NO_STATE } from '../../support/checks.ts';
import { envelope, message } from '../../support/mail.ts';

const TRACE = 'aaaabbbbccccdddd';

let settled: [trace: string, mailbox: string | null, lingerMs: number][];
let aliases: Map<string, Destination>;
let lines: string[];
let fails: boolean;

beforeEach(() => {
  settled = [];
  aliases = new Map();
  lines = [];
  fails = false;
});

const log = pino({ level: 'debug' }, { write: (line: string) => void lines.push(line) });

function tools(values: Partial<CheckTools> = {}): CheckTools {
  return checkTools({
    quota: { usage: () => Promise.reject(new Error('nobody asks')) },
    state: {
      ...NO_STATE,
      settle(trace, mailbox, lingerMs) {
        if (fails) return Promise.reject(new Error('the disk is full'));
        settled.push([trace, mailbox, lingerMs]);
        return Promise.resolve();
      },
    },
    directory: {
      ...NO_DIRECTORY,
      destination: (address) =>
        aliases.get(settingsKey(address)) ?? {
          kind: 'delivered',
          mailboxes: [settingsKey(address)],
          elsewhere: false,
        },
    },
    ...values,
  });
}

/** By recipient, what was answered after the dot. */
function answered(replies: Readonly<Record<string, string>>): Answered {
  return {
    message: message({ envelope: envelope({ recipients: Object.keys(replies).map((to) => `<${to}>`) }) }),
    size: 1,
    origin: { trace: TRACE, queueId: '4ABCdef123z', direction: 'in', milter: null },
    outcomes: [],
    sentences: [],
    replies: Object.values(replies),
    time: 0,
    elapsed: 0,
  };
}

describe('room that was held', () => {
  test('is free once the mailbox has the message or never will; what is tried again keeps it', async () => {
    const replies = {
      'Zeus+news@olimpus.example': '250 2.0.0 <zeus@olimpus.example> Saved',
      'hera@olimpus.example': '552 5.2.2 <hera@olimpus.example> Quota exceeded',
      'ares@olimpus.example': '452 4.2.2 <ares@olimpus.example> Quota exceeded',
    };
    await settleQuota(answered(replies), tools(), '+', log);
    expect(settled).toEqual([
      [TRACE, 'zeus@olimpus.example', LINGER_MS],
      [TRACE, 'hera@olimpus.example', 0],
    ]);
    expect(lines).toEqual([]);
  });

  test('by the names under which it is held: of an alias that is delivered under its own name, all its mailboxes', async () => {
    const mailboxes = ['zeus@olimpus.example', 'archive@olimpus.example'];
    aliases.set('zeus@olimpus.example', { kind: 'delivered', mailboxes, elsewhere: false });
    aliases.set('old@olimpus.example', { kind: 'delivered', mailboxes, elsewhere: false });
    aliases.set('odin@valhalla.example', { kind: 'unknown' });
    const saved = '250 2.0.0 Saved';
    // Postfix has followed the alias: this is one of the two deliveries.
    await settleQuota(answered({ 'zeus@olimpus.example': saved }), tools(), '+', log);
    expect(settled.map(([, mailbox]) => mailbox)).toEqual(['zeus@olimpus.example']);
    settled = [];
    await settleQuota(
      answered({ 'old@olimpus.example': saved, 'odin@valhalla.example': saved }),
      tools(),
      '+',
      log,
    );
    expect(settled.map(([, mailbox]) => mailbox)).toEqual(mailboxes);
  });

  test('where quota is not looked at nothing is asked', async () => {
    await settleQuota(answered({ 'zeus@olimpus.example': '250 Saved' }), tools({ quota: null }), '+', log);
    expect(settled).toEqual([]);
  });

  test('a state that fails is told in the log, once for a message, and to nobody else', async () => {
    fails = true;
    const saved = '250 2.0.0 Saved';
    await settleQuota(
      answered({ 'zeus@olimpus.example': saved, 'hera@olimpus.example': saved }),
      tools(),
      '+',
      log,
    );
    expect(lines).toHaveLength(1);
    expect(lines[0]).toContain('the disk is full');
    expect(lines[0]).toContain(TRACE);
  });
});
