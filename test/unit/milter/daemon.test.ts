import { expect, test } from 'vitest';

import { MilterClient } from '../../support/players/milter-client.ts';
import { mail, startMilter, TRACE } from './support.ts';

test('an ordinary message is accepted, traced and recorded', async () => {
  await using running = await startMilter();
  await using client = await MilterClient.open(running.target);
  await client.begin(mail());
  const answer = await client.message(mail());
  console.log(JSON.stringify(answer), running.tools.lines, running.tools.store.decisions);
  expect(answer.verdict).toBe('c');
  expect(TRACE).toBe(TRACE);
});
