import { readFileSync } from 'node:fs';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { z } from 'zod';

import { createResolver } from '../../src/adapters/dns.ts';
import { createMailAuth } from '../../src/adapters/mail-auth.ts';
import { spfCheck } from '../../src/checks/spf.ts';
import { DnsServer, type ZoneData } from '../support/players/dns-server.ts';
import { PolicyClient } from '../support/players/policy-client.ts';
import { stagePolicyd, type PolicydStage } from '../support/policyd.ts';

// The test suite of openspf.org for RFC 7208, through the daemon: each case is a message whose recipients policyd is asked about, its
// records are served by a name server. (test/fixtures/rfc7208-tests.LICENSE; our own cases, clause by clause, are in spf.test.ts.)

const RECORD = z.tuple([z.string()], z.string());
const SUITE = z.object({
  scenarios: z.array(
    z.object({
      description: z.string(),
      zone: z.record(z.string(), z.array(RECORD)),
      cases: z.array(
        z.object({
          name: z.string(),
          spec: z.string(),
          host: z.string(),
          helo: z.string(),
          mailfrom: z.string(),
          /** Any of these is right. */
          result: z.array(z.string()),
          explanation: z.string().optional(),
        }),
      ),
    }),
  ),
});
type Scenario = z.infer<typeof SUITE>['scenarios'][number];
type Case = Scenario['cases'][number];

const { scenarios } = SUITE.parse(
  JSON.parse(readFileSync(new URL('../fixtures/rfc7208-tests.json', import.meta.url), 'utf8')),
);

const CASES = 203;
const DNS_TIMEOUT_MS = 400;

/** The suite's word for "the receiver says something of its own". */
const NO_EXPLANATION = 'DEFAULT';

/** Receiver policies by domain: one takes whatever SPF says, the other refuses by every result that it can. */
const CLOCK = { now: () => Date.now(), elapsed: () => performance.now() };
const POLICIES = `
[rules]
spf.helo-fail = "ignore"

[[override]]
recipients = ["@lenient.example"]
rules.spf.fail = "ignore"

[[override]]
recipients = ["@strict.example"]
rules.spf.fail = "reject"
rules.spf.softfail = "reject"
rules.spf.permerror = "reject"
rules.spf.temperror = "defer"
`;

const REFUSALS: Readonly<Record<string, RegExp>> = {
  fail: /^550 5\.7\.23 SPF: the sending host is not allowed to send for this domain/,
  softfail: /^550 5\.7\.23 SPF: the sending host is probably not allowed to send for this domain/,
  permerror: /^550 5\.7\.24 SPF: the record of the sender domain is broken/,
  temperror: /^DEFER_IF_PERMIT 4\.7\.24 SPF: the record of the sender domain could not be read/,
  pass: /^DUNNO$/,
  neutral: /^DUNNO$/,
  none: /^DUNNO$/,
};

/**
 * The suite writes records of type SPF, which RFC 7208 §3.1 has no more: a name without TXT records has them as TXT (`NONE`: it has none).
 * TIMEOUT stands for all types a name has no records of.
 */
function zoneOf(scenario: Scenario): ZoneData {
  const zone: Record<string, (string | readonly string[])[]> = {};
  for (const [name, records] of Object.entries(scenario.zone)) {
    const hasTxt = records.some(([type]) => type === 'TXT');
    for (const [type, ...values] of records) {
      const served = type === 'SPF' && !hasTxt ? 'TXT' : type;
      if (served === 'SPF' || values[0] === 'NONE') continue;
      const list = (zone[`${served} ${name}`] ??= []);
      if (served === 'TXT') list.push(values.flatMap((text) => text.match(/.{1,255}/gs) ?? []));
      else list.push(values.join(' '));
    }
    // The name is there, with nothing that is asked for.
    if (!Object.keys(zone).some((key) => key.endsWith(` ${name}`))) zone[`A ${name}`] = [];
  }
  return zone;
}

/** Answers for one message: to the recipient whose domain takes it, and to the one whose domain refuses what it can. */
async function answers(stage: PolicydStage, { host, helo, mailfrom, name }: Case): Promise<[string, string]> {
  await using client = await PolicyClient.open(stage.target);
  const request = {
    protocol_state: 'RCPT',
    client_address: host,
    client_port: '40000',
    helo_name: helo,
    sender: mailfrom,
    instance: name,
  };
  const lenient = await client.ask({ ...request, recipient: 'zeus@lenient.example' });
  const strict = await client.ask({ ...request, recipient: 'zeus@strict.example' });
  return [lenient, strict];
}

let right = 0;

describe.each(scenarios)('$description', (scenario) => {
  const opened = new AsyncDisposableStack();
  let stage: PolicydStage;

  beforeAll(async () => {
    const server = opened.use(await DnsServer.open(zoneOf(scenario)));
    const servers = [{ host: '127.0.0.1', port: server.port }];
    const resolver = opened.use(
      createResolver({ servers, timeoutMs: DNS_TIMEOUT_MS, cacheEntries: 1000 }, CLOCK),
    );
    const mailAuth = createMailAuth(resolver, { hostname: 'mx.olimpus.example', clock: CLOCK });
    stage = opened.use(await stagePolicyd([spfCheck], POLICIES, { resolver, mailAuth, clock: CLOCK }));
  });
  afterAll(() => opened.disposeAsync());

  test.each(scenario.cases)('$spec $name: $result', async (given) => {
    const [lenient, strict] = await answers(stage, given);
    const result =
      /^PREPEND Received-SPF: (\w+) receiver=mx\.olimpus\.example;/.exec(lenient)?.[1] ?? lenient;
    expect(given.result).toContain(result);
    expect(strict).toMatch(REFUSALS[result] ?? /^$/);
    expect(lenient).toContain(`identity=${given.mailfrom === '' ? 'helo' : 'mailfrom'};`);
    const said = /; \S+ explains: (.*) \(\S+\)$/.exec(strict)?.[1] ?? NO_EXPLANATION;
    // Hexadecimal digits of an address, of either case: RFC 5234 §2.3.
    expect(said.toLowerCase()).toBe((given.explanation ?? said).toLowerCase());
    right++;
  });
});

test('the whole suite', () => {
  const line = `RFC 7208 test suite through policyd: ${right} of ${scenarios.flatMap(({ cases }) => cases).length}`;
  console.info(line);
  expect(line).toBe(`RFC 7208 test suite through policyd: ${CASES} of ${CASES}`);
});
