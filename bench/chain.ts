// `node bench/chain.ts [MESSAGES]`: how fast real Postfix delivers to real Dovecot, directly and through lmtp-filter, in turns. Debian 12 and root.
// Mail comes from smtp-source(1) on eight connections; a round lasts from the first connection until the queue is empty.

import { startDovecot } from '../test/support/neighbours/dovecot.ts';
import { startPostfix } from '../test/support/neighbours/postfix.ts';
import { run } from '../test/support/neighbours/process.ts';
import { preparePostern } from '../test/support/postern.ts';
import { PASSWORD } from '../test/support/site.ts';

const MESSAGES = Number(process.argv[2] ?? 1000);
const ROUNDS = 3;
const SESSIONS = 8;
const OCTETS = 2048;
const ROUND_MS = 300_000;
const USER = 'zeus@olimpus.example';

if (!Number.isSafeInteger(MESSAGES) || MESSAGES < SESSIONS)
  throw new Error(`expected a number of messages, ${SESSIONS} or more`);

await using dovecot = await startDovecot({ users: { [USER]: PASSWORD } });
await using postern = await preparePostern({ upstream: `127.0.0.1:${dovecot.lmtpPort}` });
await postern.start('lmtp-filter');

const WAYS = {
  direct: `lmtp:inet:127.0.0.1:${dovecot.lmtpPort}`,
  'through lmtp-filter': `postern:${postern.address['lmtp-filter']}`,
} as const;

const perSecond: Record<keyof typeof WAYS, number[]> = { direct: [], 'through lmtp-filter': [] };
const site = { domains: ['olimpus.example'], mailboxes: [USER] };
await using postfix = await startPostfix({ ...site, virtualTransport: WAYS.direct });
const delivered = async (): Promise<number> => {
  const text = await dovecot.doveadm('mailbox', 'status', '-u', USER, 'messages', 'INBOX');
  return Number(/messages=(\d+)/.exec(text)?.[1] ?? 0);
};
for (let round = 0; round <= ROUNDS; round++) {
  for (const way of ['direct', 'through lmtp-filter'] as const) {
    await postfix.reload({ ...site, virtualTransport: WAYS[way] });
    const before = await delivered();
    const begun = performance.now();
    const sent = await run(
      'smtp-source',
      // prettier-ignore
      [
        '-s', String(SESSIONS), '-m', String(MESSAGES), '-l', String(OCTETS),
        '-f', 'alice@sender.example', '-t', USER, `127.0.0.1:${postfix.smtpPort}`,
      ],
      { deadlineMs: ROUND_MS },
    );
    if (sent.code !== 0) throw new Error(`smtp-source: ${sent.stderr}`);
    await postfix.waitForQueueEmpty(ROUND_MS);
    const seconds = (performance.now() - begun) / 1000;
    const came = (await delivered()) - before;
    if (came !== MESSAGES) throw new Error(`${way}: ${came} of ${MESSAGES} messages came`);
    // The first round warms everything up.
    if (round > 0) perSecond[way].push(MESSAGES / seconds);
    console.log(JSON.stringify({ round, way, perSecond: Math.round(MESSAGES / seconds) }));
  }
}
const median = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[values.length >> 1] ?? 0;
const share = median(perSecond['through lmtp-filter']) / median(perSecond.direct);
console.log(JSON.stringify({ messages: MESSAGES, rounds: ROUNDS, share: Number(share.toFixed(2)) }));
