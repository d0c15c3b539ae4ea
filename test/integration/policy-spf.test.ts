import { expect, test } from 'vitest';

import { startPolicySite } from '../support/policy-site.ts';
import { LOKI, ODIN, ZEUS } from '../support/site.ts';
import { describeWithNeighbours } from '../support/with-neighbours.ts';

const ZONES = {
  'valhalla.example': [
    '@ TXT "v=spf1 ip4:192.0.2.20 -all exp=why._spf.valhalla.example"',
    'why._spf TXT "%{i} is no host of %{d}"',
    'soft TXT "v=spf1 ip4:192.0.2.20 ~all"',
    'broken TXT "v=spf1 nonsense -all"',
    'nothing A 192.0.2.20',
    'soft A 192.0.2.20',
    'broken A 192.0.2.20',
    '_out TXT "v=spf1 ip4:192.0.2.20 -all"',
  ].join('\n'),
};

const HERA = 'hera@asgard.example';

describeWithNeighbours('SPF at a real Postfix', () => {
  test('refusals with code and text, the domain in its own words, and the same mail under a rule in shadow', async () => {
    await using site = await startPolicySite({ zones: ZONES });
    const from = 'thor@valhalla.example';
    expect((await site.send({ client: ODIN, from, to: [ZEUS] })).outcome.code).toBe(250);

    const refused = await site.send({ client: LOKI, from, to: [ZEUS] });
    expect(refused.rcpt[0]).toMatchObject({ code: 550, enhanced: '5.7.23' });
    expect(refused.rcpt[0]?.text).toMatch(
      /SPF: the sending host is not allowed to send for this domain; valhalla\.example explains: 198\.51\.100\.66 is no host of valhalla\.example \(/,
    );
    // A name with an underscore has a record like any other.
    const underscored = await site.send({ client: LOKI, from: 'thor@_out.valhalla.example', to: [ZEUS] });
    expect(underscored.rcpt[0]).toMatchObject({ code: 550, enhanced: '5.7.23' });

    await site.reload('[checks.spf]\nexplanation = false\n');
    const silent = await site.send({ client: LOKI, from, to: [ZEUS] });
    expect(silent.rcpt[0]).toMatchObject({ code: 550, enhanced: '5.7.23' });
    expect(silent.rcpt[0]?.text).not.toContain('explains');

    await site.reload('[rules]\nspf.fail = { action = "reject", shadow = true }\n');
    expect((await site.send({ client: LOKI, from, to: [ZEUS] })).outcome.code).toBe(250);
    const [last] = await site.postern.history('--from', from);
    expect(last?.verdict).toBe('accept');
    expect(last?.reply).toMatch(/^PREPEND Received-SPF: fail /);
  });

  test('each domain has its own receiver policy, for every result', async () => {
    await using site = await startPolicySite({
      zones: ZONES,
      config: `
[[override]]
recipients = ["@asgard.example"]
rules.spf.fail = "ignore"
rules.spf.softfail = "reject"
rules.spf.permerror = "reject"
rules.spf.none = { action = "reject", text = "No SPF, no mail" }
`,
    });
    const replies = async (from: string): Promise<readonly string[]> => {
      const { rcpt } = await site.send({ client: LOKI, from, to: [ZEUS, HERA] });
      return rcpt.map(({ code, enhanced }) => `${code} ${enhanced}`);
    };
    expect(await replies('thor@valhalla.example')).toEqual(['550 5.7.23', '250 2.1.5']);
    expect(await replies('thor@soft.valhalla.example')).toEqual(['250 2.1.5', '550 5.7.23']);
    expect(await replies('thor@broken.valhalla.example')).toEqual(['250 2.1.5', '550 5.7.24']);
    expect(await replies('thor@nothing.valhalla.example')).toEqual(['250 2.1.5', '550 5.7.1']);
  });
});
