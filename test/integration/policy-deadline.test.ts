import { expect, test } from 'vitest';

import { startPolicySite, type PolicySite } from '../support/policy-site.ts';
import { ODIN, ZEUS } from '../support/site.ts';
import { describeWithNeighbours } from '../support/with-neighbours.ts';

const DEADLINE_S = 2;
/** For SMTP and a busy machine. Postfix itself would wait for 100 s. */
const SLACK_S = 8;

/** What asks the DNS about each message: SPF, HELO, MX and a list. */
const CONFIG = `
policyd.deadline = "${DEADLINE_S}s"
checks.mx.enabled = true
checks.helo.enabled = true
rules."mx.no-domain" = "ignore"
unavailable.spf = "RULE"
# Which of the two it is depends on whose time is up first: that of the answer, or that of the questions to the DNS.
rules."spf.temperror" = "RULE"

[[checks.dnsbl.list]]
name = "block"
zone = "list.example"
weight = 5
`;

interface Timed {
  readonly code: number;
  readonly text: string;
  readonly seconds: number;
}

/** Each sender is asked about for the first time. */
async function timed(site: PolicySite, from: string): Promise<Timed> {
  const begun = performance.now();
  const { rcpt } = await site.send({ client: ODIN, from, to: [ZEUS] });
  const [reply] = rcpt;
  return { code: reply?.code ?? 0, text: reply?.text ?? '', seconds: (performance.now() - begun) / 1000 };
}

describeWithNeighbours('a name server that does not answer', () => {
  test('has the answer come in time, by the rule for what could not be checked', async () => {
    await using site = await startPolicySite({ config: CONFIG.replaceAll('RULE', 'defer') });
    expect(await timed(site, 'odin@before.example')).toMatchObject({ code: 250 });

    site.bind.freeze();
    const deferred = await timed(site, 'odin@frozen.example');
    expect(deferred.code).toBe(450);
    expect(deferred.seconds).toBeLessThan(DEADLINE_S + SLACK_S);
    const [decision] = await site.postern.history('--from', 'odin@frozen.example');
    expect(decision?.verdict).toBe('defer');
    expect(decision?.rule).toMatch(/^(?:unavailable:spf|spf\.temperror)$/);

    await site.reload(CONFIG.replaceAll('RULE', 'ignore'));
    const passed = await timed(site, 'odin@ignored.example');
    expect(passed.code).toBe(250);
    expect(passed.seconds).toBeLessThan(DEADLINE_S + SLACK_S);

    site.bind.thaw();
    await site.reload(CONFIG.replaceAll('RULE', 'defer'));
    expect(await timed(site, 'odin@after.example')).toMatchObject({ code: 250 });
  });

  test('many at once wait no longer than one', async () => {
    await using site = await startPolicySite({ config: CONFIG.replaceAll('RULE', 'defer') });
    site.bind.freeze();
    const senders = Array.from({ length: 40 }, (_, index) => `odin@many${index}.example`);
    const answers = await Promise.all(senders.map((from) => timed(site, from)));
    expect(new Set(answers.map(({ code }) => code))).toEqual(new Set([450]));
    expect(Math.max(...answers.map(({ seconds }) => seconds))).toBeLessThan(DEADLINE_S + SLACK_S);
    site.bind.thaw();
  });
});
