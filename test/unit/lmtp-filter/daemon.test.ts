import { expect, test } from 'vitest';

import { letter, startFilter } from './support.ts';

test('a message goes to Dovecot, and its own words come back', async () => {
  await using running = await startFilter();
  await using client = await running.client();
  client.send('MAIL FROM:<thor@valhalla.local> SIZE=483\r\nRCPT TO:<zeus@olimpus.local>\r\nDATA\r\n');
  expect(await client.replies(3)).toEqual(['250 2.1.0 OK', '250 2.1.5 OK', '354 End data with <CR><LF>.<CR><LF>']);
  client.send(`${letter()}.\r\nQUIT\r\n`);
  expect(await client.rest()).toEqual([
    '250 2.0.0 <zeus@olimpus.local> kMpbMDdUAWueEwAApsd9UA Saved',
    '221 2.0.0 Bye',
  ]);
  expect(running.dovecot.mails).toHaveLength(1);
  console.log(running.dovecot.mails[0]?.content, running.dovecot.commands, running.tools.lines, running.tools.store.decisions);
});
