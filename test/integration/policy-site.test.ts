import { expect, test } from 'vitest';

import { startPolicySite } from '../support/policy-site.ts';
import { LOKI, ODIN, ZEUS } from '../support/site.ts';
import { describeWithNeighbours } from '../support/with-neighbours.ts';

describeWithNeighbours('the policy site', () => {
  test('a mail each way: from outside, by a login, from this host; refused, reconfigured, restarted', async () => {
    await using site = await startPolicySite({
      zones: { 'valhalla.example': '@ TXT "v=spf1 ip4:192.0.2.20 -all"' },
      users: { [ZEUS]: 'nectar' },
      alsoAt: ['data', 'end-of-data'],
    });
    const from = 'odin@valhalla.example';
    expect((await site.send({ client: ODIN, from, to: [ZEUS] })).outcome.code).toBe(250);
    expect((await site.send({ login: ZEUS, from: ZEUS, to: [from] })).outcome.code).toBe(250);
    expect((await site.send({ from, to: ['nobody.else@asgard.example'] })).outcome.code).toBe(250);
    const refused = await site.send({ client: LOKI, from, to: [ZEUS] });
    expect(refused.rcpt[0]).toMatchObject({ code: 550, enhanced: '5.7.23' });
    await site.reload('[rules]\nspf.fail = "ignore"\n');
    expect((await site.send({ client: LOKI, from, to: [ZEUS] })).outcome.code).toBe(250);
    await site.restart('[rules]\nspf.fail = "defer"\n');
    expect((await site.send({ client: LOKI, from, to: [ZEUS] })).rcpt[0]?.code).toBe(450);
    await using client = await site.dial(LOKI);
    expect((await client.mail(from)).code).toBe(250);
    expect((await client.rcpt(ZEUS)).code).toBe(450);
  });
});
