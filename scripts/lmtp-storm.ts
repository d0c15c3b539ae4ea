// `npm run storm -- [MESSAGES]`: real Postfix, lmtp-filter and Dovecot (Debian 12 and root), the last two killed at every step of their
// dialogue while mail flows; says for each message what became of it. 10,000 messages unless told otherwise.
import { lmtpStorm, mistakes } from '../test/support/lmtp-storm.ts';

const messages = Number(process.argv[2] ?? 10_000);
if (!Number.isSafeInteger(messages) || messages < 100)
  throw new Error('expected a number of messages, 100 or more');

const report = await lmtpStorm({ messages, told: (text) => console.error(text) });
const { deliveries, kills, possibleDuplicates, seconds } = report;
const wrong = mistakes(report);
const sum = (of: (delivery: (typeof deliveries)[number]) => number): number =>
  deliveries.reduce((total, delivery) => total + of(delivery), 0);

console.log(
  JSON.stringify(
    {
      messages,
      recipients: deliveries.length,
      kills: kills.length,
      delivered: sum(({ copies }) => Math.min(1, copies)),
      bounced: sum(({ bounced }) => Number(bounced)),
      queued: sum(({ queued }) => Number(queued)),
      duplicates: sum(({ copies }) => Math.max(0, copies - 1)),
      inDoubt: sum(({ excuses }) => excuses),
      possibleDuplicatesTold: possibleDuplicates,
      mistakes: wrong.length,
      seconds: Math.round(seconds),
    },
    null,
    2,
  ),
);
for (const mistake of wrong.slice(0, 50)) console.error(mistake);
process.exitCode = wrong.length === 0 ? 0 : 1;
