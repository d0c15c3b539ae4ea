import { readFile, writeFile } from 'node:fs/promises';

import { privateFolder } from './folder.ts';
import { run } from './process.ts';
import type { Spamd } from './spamd.ts';

/** What procmail delivers of a message when its rc file has the usual recipe for spamc. Lines end in LF, before and after. */
export async function procmailWithSpamc(spamd: Spamd, message: Buffer): Promise<string> {
  await using folder = await privateFolder('procmail');
  const rc = folder.join('procmailrc');
  const mailbox = folder.join('mailbox');
  const spamc = `/usr/bin/spamc -d ${spamd.host} -p ${spamd.port} -x`;
  await writeFile(rc, `DEFAULT=${mailbox}\nLOCKFILE=\n:0 hbfw\n| ${spamc}\n\n:0\n${mailbox}\n`);
  const { code, stderr } = await run('procmail', ['-m', rc], { input: message, cwd: folder.path });
  if (code !== 0) throw new Error(`procmail ended with ${code}: ${stderr}`);
  const written = (await readFile(mailbox, 'latin1')).replace(/^From .*\n/, '');
  // mbox: an empty line ends each message.
  return written.replace(/\n$/, '');
}
