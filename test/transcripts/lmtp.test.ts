import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

import { expect, test } from 'vitest';
import { z } from 'zod';

import { ReplyDecoder, type UpstreamReply } from '../../src/lmtp-filter/reply-decoder.ts';
import { relayed } from '../../src/lmtp-filter/render.ts';
import type { FakeDovecot } from '../support/players/fake-dovecot.ts';
import { LmtpTalk } from '../support/players/lmtp-talk.ts';
import { startFilter } from '../unit/lmtp-filter/support.ts';

const DATA = join(import.meta.dirname, 'data');

interface Segment {
  /** `C`: Postfix's lmtp(8). `S`: what it was answered. */
  readonly side: 'C' | 'S';
  readonly octets: string;
}

/** Dialogues of a file, each a list of segments as they were sent. */
function dialogues(name: string): Segment[][] {
  return readFileSync(join(DATA, name), 'utf8')
    .trimEnd()
    .split('\n\n')
    .map((dialogue) =>
      dialogue.split('\n').map((line) => ({
        side: line.startsWith('C') ? 'C' : 'S',
        octets: z.string().parse(JSON.parse(line.slice(2))),
      })),
    );
}

function replies(octets: string): UpstreamReply[] {
  return new ReplyDecoder().push(Buffer.from(octets, 'latin1'));
}

/** Has Dovecot refuse and answer as the recorded server did. */
function behaveAs(dovecot: FakeDovecot, segments: readonly Segment[]): void {
  const dots: string[] = [];
  const rcpts: string[] = [];
  let commands: string[] = [];
  let inData = false;
  for (const { side, octets } of segments) {
    if (side === 'C') {
      commands = inData ? ['(message)'] : octets.trimEnd().split('\r\n');
      continue;
    }
    const answers = replies(octets).map((reply) => relayed(reply));
    if (inData)
      dots.push(
        answers
          .filter((answer) => !answer.startsWith('221'))
          .map((answer) => `${answer}\r\n`)
          .join(''),
      );
    commands.forEach((command, i) => {
      if (command.startsWith('RCPT')) rcpts.push(`${answers[i]}\r\n`);
    });
    inData = answers.at(-1)?.startsWith('354') === true;
  }
  dovecot.fault = ({ step }) => {
    const text = step === 'RCPT' ? rcpts.shift() : step === 'dot' ? dots.shift() : undefined;
    return text === undefined ? null : { text };
  };
}

const FILES = readdirSync(DATA).filter((name) => name.startsWith('lmtp-') && name !== 'lmtp-dovecot.txt');

test('the recorded dialogues are there', () => {
  expect(FILES.length).toBeGreaterThanOrEqual(6);
});

test.each(FILES.flatMap((name) => dialogues(name).map((segments, i) => [name, i + 1, segments] as const)))(
  '%s, dialogue %d: Postfix gets as many replies as it counts on, in the words of Dovecot',
  async (_, __, segments) => {
    await using running = await startFilter({ keys: 'full_mailbox_wait = "0s"' });
    running.dovecot.capabilities.push('SMTPUTF8');
    behaveAs(running.dovecot, segments);
    await using client = await LmtpTalk.open(running.target);
    let sent = '';
    for (const { side, octets } of segments) {
      if (side === 'C') {
        client.send(octets);
        sent = octets;
        continue;
      }
      const expected = replies(octets);
      const got = await client.replies(expected.length);
      expect(got.map((reply) => reply.slice(0, 3))).toEqual(expected.map(({ code }) => String(code)));
      if (!sent.includes('\r\n.\r\n')) continue;
      const words = expected
        .filter(({ code }) => code !== 221)
        .map((reply) => relayed(reply).replaceAll('\r\n', '\n'));
      expect(got.slice(0, words.length)).toEqual(words);
      // What was sent is what was stored, below what was put on top.
      const content = sent.slice(0, sent.indexOf('\r\n.\r\n') + 2).replaceAll('\r\n..', '\r\n.');
      expect(running.dovecot.mails.at(-1)?.content.endsWith(content)).toBe(true);
    }
    for (const { to } of running.dovecot.mails) expect(to.length).toBeGreaterThan(0);
  },
);

test.each([1, 7, 1000])('XFORWARD, in pieces of %d octets', async (size) => {
  for (const segments of dialogues('lmtp-xforward.txt')) {
    await using running = await startFilter();
    await using client = await LmtpTalk.open(running.target);
    for (const { side, octets } of segments) {
      if (side === 'S') await client.replies(replies(octets).length);
      else for (let i = 0; i < octets.length; i += size) await client.sendApart(octets.slice(i, i + size));
    }
    const local = segments.some(({ octets }) => octets.includes('SOURCE=LOCAL'));
    expect(running.tools.store.decisions).toHaveLength(1);
    expect(running.tools.store.decisions[0]).toMatchObject(
      local
        ? { client: '', direction: 'out', queueId: 'D057D24C475' }
        : { client: '192.0.2.20', helo: 'odin.valhalla.local', direction: 'in', queueId: 'C611424C47D' },
    );
  }
});

test("Dovecot's recorded replies are read one by one, and passed on unchanged", () => {
  let count = 0;
  for (const dialogue of readFileSync(join(DATA, 'lmtp-dovecot.txt'), 'utf8').trimEnd().split('\n\n')) {
    const lines = dialogue.split('\n').filter((line) => line.startsWith('S '));
    const octets = lines.map((line) => `${line.slice(2)}\r\n`).join('');
    const read = replies(octets);
    expect(read.map((reply) => `${relayed(reply)}\r\n`).join('')).toBe(octets);
    count += read.length;
  }
  expect(count).toBe(49);
});
