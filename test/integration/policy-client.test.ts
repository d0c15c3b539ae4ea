import { expect, test } from 'vitest';

import type { Xclient } from '../support/neighbours/smtp-client.ts';
import { startPolicySite } from '../support/policy-site.ts';
import { ODIN, ZEUS } from '../support/site.ts';
import { describeWithNeighbours } from '../support/with-neighbours.ts';

/** Decisions are written in batches, and the command takes its time on a busy machine. */
const PATIENCE = { timeout: 20_000 };

const FROM = 'odin@valhalla.example';

const ZONES = {
  'valhalla.example': '@ MX 10 mx\nmx A 1.1.1.1\nodin A 192.0.2.20',
  'null.example': '@ MX 0 .',
  'none.example': '@ TXT "nothing else"',
  'bogus.example': '@ MX 10 mx\nmx A 127.0.0.1',
};

const ACCESS = `
[[checks.access.entry]]
action = "allow"
name = "friend"
client = ["203.0.113.5"]

[[checks.access.entry]]
action = "deny"
name = "old-partner"
text = "Please write to sales"
sender = ["*@*.partner.example"]

[[checks.access.entry]]
action = "deny"
name = "network"
client = ["203.0.113.0/24"]
recipients = ["@olimpus.example"]
`;

interface Refusal {
  readonly code: string;
  readonly client: Xclient;
  readonly from?: string;
  readonly helo?: string;
  readonly reply: { readonly code: number; readonly enhanced: string };
  readonly text: string;
}

const NETWORK = { addr: '203.0.113.9', name: 'host.example', helo: 'host.example' };
const NAMELESS = { addr: '192.0.2.20', helo: 'odin.valhalla.example' };
const REJECTED = { code: 550, enhanced: '5.7.1' };

const REFUSALS: readonly Refusal[] = [
  {
    code: 'access.old-partner',
    client: ODIN,
    from: 'x@mail.partner.example',
    reply: { code: 554, enhanced: '5.7.1' },
    text: 'Please write to sales',
  },
  { code: 'access.network', client: NETWORK, reply: { code: 554, enhanced: '5.7.1' }, text: 'Access denied' },
  { code: 'helo.syntax', client: ODIN, helo: 'odin..example', reply: REJECTED, text: 'is no host name' },
  { code: 'helo.own-name', client: ODIN, helo: 'mx.olimpus.example', reply: REJECTED, text: 'is ours' },
  { code: 'helo.bare', client: ODIN, helo: 'odin', reply: REJECTED, text: 'not fully qualified' },
  { code: 'helo.address', client: ODIN, helo: '[192.0.2.21]', reply: REJECTED, text: 'is an address' },
  { code: 'helo.literal', client: ODIN, helo: '[192.0.2.20]', reply: REJECTED, text: 'is an address' },
  {
    code: 'helo.unknown',
    client: ODIN,
    helo: 'loki.valhalla.example',
    reply: REJECTED,
    text: 'does not exist',
  },
  {
    code: 'helo.temperror',
    client: ODIN,
    helo: 'odin.silent.example',
    reply: { code: 450, enhanced: '4.7.1' },
    text: 'could not be looked up',
  },
  {
    code: 'ptr.none',
    client: NAMELESS,
    reply: { code: 550, enhanced: '5.7.25' },
    text: 'has no reverse DNS name',
  },
  {
    code: 'ptr.unverified',
    client: { ...NAMELESS, reverseName: 'odin.valhalla.example' },
    reply: { code: 550, enhanced: '5.7.25' },
    text: 'does not lead back',
  },
  {
    code: 'ptr.generic',
    client: { ...ODIN, name: '192-0-2-20.dsl.example' },
    reply: { code: 550, enhanced: '5.7.25' },
    text: 'dial-up line',
  },
  {
    code: 'mx.null-sender',
    client: ODIN,
    from: 'a@null.example',
    reply: { code: 550, enhanced: '5.7.27' },
    text: 'accepts no mail',
  },
  {
    code: 'mx.no-domain',
    client: ODIN,
    from: 'a@gone.example',
    reply: { code: 450, enhanced: '4.7.1' },
    text: 'does not exist',
  },
  { code: 'mx.none', client: ODIN, from: 'a@none.example', reply: REJECTED, text: 'can receive no mail' },
  { code: 'mx.bogus', client: ODIN, from: 'a@bogus.example', reply: REJECTED, text: 'can not be reached' },
  {
    code: 'mx.temperror',
    client: ODIN,
    from: 'a@silent.example',
    reply: { code: 450, enhanced: '4.7.1' },
    text: 'could not be looked up',
  },
];

function config(shadow: boolean): string {
  const rules = REFUSALS.map(({ code, reply }) => {
    const action = reply.code < 500 ? 'defer' : 'reject';
    return `${JSON.stringify(code)} = { action = "${action}", shadow = ${shadow}${code === 'access.old-partner' ? ', text = "Please write to sales"' : ''} }`;
  });
  const checks =
    'checks.helo = { lookup = true, deadline = "3s" }\nchecks.mx.deadline = "3s"\nchecks.spf.enabled = false\n';
  return `${checks}${ACCESS}\n[rules]\n${rules.join('\n')}\n`;
}

describeWithNeighbours('who the client is', () => {
  test('each refusal as the client sees it, and the same mail passing with the rule in shadow', async () => {
    await using site = await startPolicySite({
      config: config(false),
      zones: ZONES,
      unreachable: ['silent.example'],
    });
    const sendAll = async (): Promise<{ code: string; reply: unknown; text: string }[]> => {
      const seen = [];
      for (const { code, client, helo, from = FROM } of REFUSALS) {
        const { outcome } = await site.send({
          client,
          from,
          to: [ZEUS],
          ...(helo === undefined ? {} : { helo }),
        });
        seen.push({ code, reply: { code: outcome.code, enhanced: outcome.enhanced }, text: outcome.text });
      }
      return seen;
    };
    for (const [index, { code, reply, text }] of (await sendAll()).entries()) {
      const expected = REFUSALS[index];
      expect({ code, reply }).toEqual({ code: expected?.code, reply: expected?.reply });
      expect(text).toContain(`<${ZEUS}>: Recipient address rejected: `);
      expect(text).toContain(expected?.text);
      expect(text).toMatch(/ \([a-z2-7]{16}\)$/);
    }

    await site.reload(config(true));
    const passed = await sendAll();
    expect(passed.map(({ code, reply }) => [code, reply])).toEqual(
      REFUSALS.map(({ code }) => [code, { code: 250, enhanced: '2.0.0' }]),
    );
    const shadows = async (): Promise<string[]> => {
      const decisions = await site.postern.history('--verdict', 'accept');
      return decisions.flatMap(({ shadow }) => shadow.map(({ rule }) => rule));
    };
    await expect
      .poll(async () => new Set(await shadows()), PATIENCE)
      .toEqual(new Set(REFUSALS.map(({ code }) => code)));
  });

  test('an entry that allows sets aside what is said of the client, and an override what it denies', async () => {
    const rules = '[rules]\nptr.none = "reject"\nmx.no-domain = "reject"\n';
    const override = `[[override]]\nrecipients = ["hera@olimpus.example"]\nrules = { "access.network" = "ignore", "ptr.none" = "ignore" }\n`;
    await using site = await startPolicySite({ config: `${ACCESS}${rules}${override}`, zones: ZONES });
    const friend = { addr: '203.0.113.5', helo: 'friend.example' };
    expect((await site.send({ client: friend, from: 'a@gone.example', to: [ZEUS] })).outcome.code).toBe(250);
    const other = { addr: '203.0.113.6', helo: 'other.example' };
    const { rcpt } = await site.send({
      client: other,
      from: FROM,
      to: [ZEUS, 'hera@olimpus.example', 'thor@asgard.example'],
    });
    expect(rcpt.map(({ code }) => code)).toEqual([554, 250, 550]);
  });

  test('by default only a null MX refuses, and a domain that does not exist waits', async () => {
    await using site = await startPolicySite({ zones: ZONES });
    const seen: [string, number][] = [];
    for (const { code, client, helo, from = FROM } of REFUSALS) {
      if (code.endsWith('.temperror')) continue;
      const { outcome } = await site.send({
        client,
        from,
        to: [ZEUS],
        ...(helo === undefined ? {} : { helo }),
      });
      seen.push([code, outcome.code]);
    }
    expect(seen.filter(([, code]) => code !== 250)).toEqual([
      // Neither partner.example nor gone.example is in the DNS.
      ['access.old-partner', 450],
      ['mx.null-sender', 550],
      ['mx.no-domain', 450],
    ]);
  });
});
