// `npm run send`: one mail by SMTP, for trying things out.
//   npm run send -- --port N --from A --to B [--to C] [--client IP] [--login USER:PASSWORD] [--subject TEXT] [--body TEXT | --file PATH]
import { readFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';

import { sendMail } from '../test/support/neighbours/smtp-client.ts';

const { values } = parseArgs({
  options: {
    port: { type: 'string' },
    from: { type: 'string' },
    to: { type: 'string', multiple: true },
    client: { type: 'string' },
    login: { type: 'string' },
    subject: { type: 'string', default: 'A test' },
    body: { type: 'string', default: 'Hello.' },
    file: { type: 'string' },
  },
});
const { port, from, to, client, login, subject, body, file } = values;
if (port === undefined || from === undefined || to === undefined) {
  console.error('send: --port, --from and --to are needed');
  process.exit(64);
}
const [user = '', password = ''] = login?.split(':') ?? [];
const data =
  file === undefined
    ? `From: ${from}\r\nTo: ${to.join(', ')}\r\nSubject: ${subject}\r\nDate: ${new Date().toUTCString().replace('GMT', '+0000')}\r\n\r\n${body}\r\n`
    : (await readFile(file, 'latin1')).replaceAll(/\r?\n/g, '\r\n');
const replies = await sendMail({
  port: Number(port),
  from,
  to,
  data,
  ...(client === undefined ? {} : { xclient: { addr: client } }),
  ...(login === undefined ? {} : { auth: { user, password } }),
});
for (const { lines } of [replies.mail, ...replies.rcpt, ...(replies.end ? [replies.end] : [])])
  console.log(lines.join('\n'));
process.exit(replies.outcome.code < 300 ? 0 : 1);
