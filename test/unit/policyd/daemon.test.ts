import { expect, test } from 'vitest';

import { PolicyClient } from '../../support/players/policy-client.ts';
import { metric, rcpt, startPolicyd } from './support.ts';

test('a message that passes gets its header field once', async () => {
  await using running = await startPolicyd();
  await using client = await PolicyClient.open(running.target);
  expect(await client.ask(rcpt())).toBe(
    'PREPEND Received-SPF: pass receiver=mx.olimpus.example; identity=mailfrom; client-ip=192.0.2.20; envelope-from="thor@valhalla.example"; helo=odin.valhalla.example',
  );
  expect(await client.ask(rcpt({ recipient: 'hera@olimpus.example' }))).toBe('DUNNO');
  expect(running.spf.asked).toHaveLength(1);
  expect(running.tools.store.decisions).toHaveLength(1);
  expect(
    await metric(running.tools.registry, 'postern_policyd_requests_total', {
      state: 'RCPT',
      action: 'PREPEND',
    }),
  ).toBe(1);
});
