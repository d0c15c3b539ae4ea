// `npm run storm -- [MESSAGES] [STORM...]`: real Postfix, lmtp-filter and Dovecot (Debian 12 and root); while mail flows, the two ends of the
// LMTP dialogue, spamd and the store are killed at every step, each in a storm of its own. Says for each storm what became of its messages.
// 10,000 messages in each unless told otherwise.
import { lmtpStorm } from '../test/support/lmtp-storm.ts';
import { mistakes, sums } from '../test/support/storm/account.ts';
import { STORMS } from '../test/support/storm/asked.ts';

const [number = '10000', ...names] = process.argv.slice(2);
const messages = Number(number);
if (!Number.isSafeInteger(messages) || messages < 100)
  throw new Error('expected a number of messages, 100 or more');
for (const name of names) {
  if (!STORMS.some((storm) => storm === name)) throw new Error(`expected ${STORMS.join(', ')}, not ${name}`);
}

for (const storm of STORMS.filter((name) => names.length === 0 || names.includes(name))) {
  const report = await lmtpStorm({ messages, storm, told: (text) => console.error(text) });
  const wrong = mistakes(report);
  const { kills, seconds } = report;
  const account = {
    storm,
    messages,
    kills: kills.length,
    ...sums(report),
    mistakes: wrong.length,
    seconds: Math.round(seconds),
  };
  console.log(JSON.stringify(account, null, 2));
  for (const mistake of wrong.slice(0, 50)) console.error(mistake);
  if (wrong.length > 0) process.exitCode = 1;
}
