import { expect, test } from 'vitest';

import { sendMail, type MailReplies } from '../support/neighbours/smtp-client.ts';
import { HERA, letter, ODIN, startSite, ZEUS } from '../support/site.ts';
import { describeWithNeighbours } from '../support/with-neighbours.ts';
import type { DaemonName } from '../support/postern.ts';

const MESSAGES = 200;
const SENDERS = 4;
/** A client that was told 4xx comes back, as every MTA does; more often than this means that something is stuck. */
const TRIES = 10;

describeWithNeighbours('restarts', () => {
  test.for<DaemonName>(['policyd', 'milter', 'lmtp-filter'])(
    '%s stopped and started while 200 messages flow: none lost, none doubled, nothing worse than 4xx',
    async (victim) => {
      const names: DaemonName[] = ['policyd', 'milter', 'lmtp-filter'];
      await using site = await startSite({ processes: names.map((name) => [name]) });
      const process = site.processes[names.indexOf(victim)];
      if (process === undefined) throw new Error('no such process');

      const refusals: number[] = [];
      let accepted = 0;
      let next = 0;
      const quarter = Promise.withResolvers<void>();
      const back = Promise.withResolvers<void>();
      const attempt = (id: number, to: readonly string[]): Promise<MailReplies> =>
        sendMail({
          port: site.postfix.smtpPort,
          xclient: ODIN,
          from: 'odin@valhalla.example',
          to,
          data: letter({ Subject: `number ${id}` }),
        });
      // As an MTA does: whoever was not accepted with 250 after the dot is tried again.
      const deliver = async (id: number): Promise<void> => {
        let pending = id % 2 === 0 ? [ZEUS] : [ZEUS, HERA];
        for (let tries = 1; pending.length > 0; tries += 1) {
          if (tries > TRIES) throw new Error(`message ${id} was not accepted in ${TRIES} tries`);
          const { outcome, rcpt, end } = await attempt(id, pending);
          for (const { code } of [outcome, ...rcpt]) if (code >= 400) refusals.push(code);
          // Who is turned away comes back later; here that is when the daemon is back.
          if (outcome.code >= 400 || rcpt.some(({ code }) => code >= 400)) await back.promise;
          pending = pending.filter((_, index) => rcpt[index]?.code !== 250 || end?.code !== 250);
        }
      };
      const sender = async (): Promise<void> => {
        for (let id = (next += 1); id <= MESSAGES; id = next += 1) {
          await deliver(id);
          accepted += 1;
          if (accepted === MESSAGES / 4) quarter.resolve();
        }
      };
      const restart = async (): Promise<void> => {
        await quarter.promise;
        expect(await process.stop()).toBe(0);
        await site.postern.start(victim);
        back.resolve();
      };
      await Promise.all([restart(), ...Array.from({ length: SENDERS }, sender)]);
      await site.postfix.flush();
      await site.postfix.waitForQueueEmpty(60_000);

      expect(accepted).toBe(MESSAGES);
      expect(refusals.filter((code) => code >= 500)).toEqual([]);
      const all = Array.from({ length: MESSAGES }, (_, index) => index + 1);
      expect(subjects(await site.dovecot.waitForMessages(ZEUS, MESSAGES))).toEqual(all);
      expect(subjects(await site.dovecot.waitForMessages(HERA, MESSAGES / 2))).toEqual(
        all.filter((id) => id % 2 === 1),
      );
    },
  );
});

function subjects(messages: readonly Buffer[]): number[] {
  return messages
    .map((message) => Number(/^Subject: number (\d+)\r$/m.exec(message.toString('latin1'))?.[1]))
    .toSorted((a, b) => a - b);
}
