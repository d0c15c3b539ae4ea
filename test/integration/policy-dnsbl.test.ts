import { expect, test } from 'vitest';

import { PolicyClient } from '../support/players/policy-client.ts';
import { startPolicySite, type PolicySite } from '../support/policy-site.ts';
import { LOKI, ODIN, ZEUS } from '../support/site.ts';
import { describeWithNeighbours } from '../support/with-neighbours.ts';

const FROM = 'thor@valhalla.example';

/** Domains that exist: whoever writes from one that does not is deferred by another check. */
const SENDERS = { 'valhalla.example': '@ A 192.0.2.20', 'spam.example': '@ A 192.0.2.66' };

/** A list in order: its test entries, and LOKI. */
const ENTRIES = [
  '2.0.0.127 A 127.0.0.2',
  '66.100.51.198 A 127.0.0.4',
  '66.100.51.198 TXT "see https://bl.example/66"',
].join('\n');

const LIST = `
[checks.dnsbl]
reasons = true
[[checks.dnsbl.list]]
name = "bl"
zone = "bl.example"
`;

function listed(name: string, more = ''): string {
  return `[[checks.dnsbl.list]]\nname = "${name}"\nzone = "${name}.example"\n${more}`;
}

async function ready(site: PolicySite): Promise<unknown> {
  const answer = await fetch(`http://127.0.0.1:${site.policyd.adminPort}/readyz`);
  return answer.json();
}

describeWithNeighbours('block lists at a real Postfix', () => {
  test('a refusal with code and text, and the same mail under a rule in shadow', async () => {
    await using site = await startPolicySite({ zones: { ...SENDERS, 'bl.example': ENTRIES }, config: LIST });
    expect((await site.send({ client: ODIN, from: FROM, to: [ZEUS] })).outcome.code).toBe(250);
    const refused = await site.send({ client: LOKI, from: FROM, to: [ZEUS] });
    expect(refused.rcpt[0]).toMatchObject({ code: 554, enhanced: '5.7.1' });
    expect(refused.rcpt[0]?.text).toContain(
      'The sending host or domain is on block lists; bl.example explains: see https://bl.example/66',
    );
    const metrics = await site.policyd.metrics();
    expect(metrics).toContain('postern_dnsbl_list_healthy{list="bl"} 1');
    expect(metrics).toContain('postern_dnsbl_queries_total{list="bl",result="listed"} 1');
    expect(metrics).toContain('postern_dnsbl_queries_total{list="bl",result="unlisted"} 1');
    expect(await ready(site)).toMatchObject({ neighbours: { 'dnsbl bl': 'in order' } });

    await site.reload(`${LIST}\n[rules]\ndnsbl.reject = { action = "reject", shadow = true }\n`);
    expect((await site.send({ client: LOKI, from: FROM, to: [ZEUS] })).outcome.code).toBe(250);
  });

  test('a list that lists the whole world, one that blocks us, one that was sold, one that is empty: none refuses', async () => {
    await using site = await startPolicySite({
      zones: {
        ...SENDERS,
        'world.example': '* A 127.0.0.2',
        'blocked.example': '* A 127.255.255.254',
        'sold.example': '* A 203.0.113.80',
        'empty.example': '@ TXT "nothing here"',
        // Only about the client it says what no list says.
        'turncoat.example': ENTRIES.replace('A 127.0.0.4', 'A 127.255.255.254'),
      },
      config: ['world', 'blocked', 'sold', 'empty', 'turncoat'].map((name) => listed(name)).join(''),
    });
    expect((await site.send({ client: LOKI, from: FROM, to: [ZEUS] })).outcome.code).toBe(250);
    expect(await ready(site)).toMatchObject({
      ready: true,
      neighbours: {
        'dnsbl world': 'not in order: lists everything: it lists what no list has',
        'dnsbl blocked': 'not in order: does not serve our name server (127.255.255.254)',
        'dnsbl sold': 'not in order: answers 203.0.113.80, which is no answer of a list',
        'dnsbl empty': 'not in order: does not list its test entry',
        'dnsbl turncoat': 'in order',
      },
    });
    const metrics = await site.policyd.metrics();
    for (const name of ['world', 'blocked', 'sold', 'empty'])
      expect(metrics).toContain(`postern_dnsbl_queries_total{list="${name}",result="skipped"} 1`);
    expect(metrics).toContain('postern_dnsbl_queries_total{list="turncoat",result="blocked"} 1');
    expect(site.policyd.log.text().match(/block list is not in order/g)).toHaveLength(4);
  });

  test('a list that is dead delays no mail beyond the deadline, and soon none at all', async () => {
    await using site = await startPolicySite({
      zones: { ...SENDERS, 'bl.example': ENTRIES },
      unreachable: ['dead.example'],
      // Believed without a test, so that it is asked though it is dead.
      config: `${LIST}${listed('dead', 'probe = false\n')}`,
    });
    const begun = performance.now();
    const refused = await site.send({ client: LOKI, from: FROM, to: [ZEUS] });
    expect(refused.rcpt[0]).toMatchObject({ code: 554, enhanced: '5.7.1' });
    // The deadline of the check is 4 s; the session itself takes a moment.
    expect(performance.now() - begun).toBeLessThan(6000);
    await site.reload(`${LIST}${listed('dead')}`);
    await site.policyd.waitForLog(/"list":"dead".*block list is not in order/);
    const again = performance.now();
    expect((await site.send({ client: ODIN, from: FROM, to: [ZEUS] })).outcome.code).toBe(250);
    expect(performance.now() - again).toBeLessThan(2000);
  });

  test('points of several lists: IPv6, domains, a welcome list', async () => {
    // RFC 5782 §2.4, of 2001:db8::66.
    const nibbles = `6.6.${'0.'.repeat(22)}8.b.d.0.1.0.0.2`;
    await using site = await startPolicySite({
      zones: {
        ...SENDERS,
        'bl.example': `${ENTRIES}\n${nibbles} A 127.0.0.2`,
        'dbl.example': 'test A 127.0.1.2\nspam.example A 127.0.1.2',
        'good.example': ENTRIES.replace('66.100.51.198 A 127.0.0.4', '66.100.51.198 A 127.0.9.3'),
      },
      config: `
[checks.dnsbl]
reject = 3
${listed('bl', 'weight = 2\n')}${listed('dbl', 'subjects = ["sender", "helo"]\n')}${listed('good', 'weight = -1\nsubjects = ["client-ipv4"]\n')}`,
    });
    const spam = 'loki@spam.example';
    // On a machine without IPv6 Postfix takes no such client from XCLIENT either: asked as it would ask.
    await using smtpd = await PolicyClient.open({ port: site.postern.port.policyd });
    const six = {
      protocol_state: 'RCPT',
      client_address: '2001:db8::66',
      client_port: '40000',
      helo_name: 'loki.example',
      recipient: ZEUS,
    };
    // 2 of the address and 1 of the domain; without the domain it is 2.
    expect(await smtpd.ask({ ...six, sender: spam, instance: 'one' })).toMatch(/^554 5\.7\.1 /);
    expect(await smtpd.ask({ ...six, sender: FROM, instance: 'two' })).toMatch(
      /^PREPEND Received-SPF: none /,
    );
    // LOKI's address and no domain; then both.
    expect((await site.send({ client: LOKI, from: FROM, to: [ZEUS] })).outcome.code).toBe(250);
    // 2 and 1, less the 1 of the welcome list.
    expect((await site.send({ client: LOKI, from: spam, to: [ZEUS] })).outcome.code).toBe(250);
  });
});
