import { expect, test } from 'vitest';
import { z } from 'zod';

import type { CheckTools } from '../../../src/checks/check.ts';
import { CHECKS } from '../../../src/checks/index.ts';
import { milterMetrics } from '../../../src/milter/metrics.ts';
import { Session } from '../../../src/milter/session.ts';
import { CommandDecoder } from '../../../src/milter/wire.ts';
import { NeighbourError } from '../../../src/ports/neighbour-error.ts';
import { metric } from '../../support/metric.ts';
import {
  configOf,
  CONNECT,
  DATA,
  EOH,
  EOM,
  HELO,
  MAIL,
  OFFER_V6,
  packet,
  RCPT,
  testTools,
} from './support.ts';

/** Checks that have a part in a message of the milter, with what switches them on and whether they look at mail of ours. */
const MADE: Readonly<
  Record<string, { readonly toml?: string; readonly out?: true; readonly reason?: string }>
> = {
  spf: {},
  virus: {},
  content: { toml: 'checks.content.rule = [{ name = "words", words = ["nectar"] }]\n' },
  dkim: {},
  arc: {},
  dmarc: {},
  author: { toml: 'checks.sender.enabled = true\n', out: true },
  settings: {},
  lists: { reason: 'needs' },
  spam: {},
};

const CONCERNED = CHECKS.filter(
  ({ stage, policyOnly }) => (stage === 'mail' || stage === 'message') && policyOnly !== true,
).map(({ name }) => name);

test('no check of the milter is missing here', () => {
  expect(Object.keys(MADE).toSorted()).toEqual(CONCERNED.toSorted());
});

function away(): Promise<never> {
  return Promise.reject(new NeighbourError('it is away'));
}

/** Every neighbour refuses to answer. */
function brokenTools(): CheckTools {
  const verification = { needsBody: true, write: () => undefined, end: away };
  return {
    ...testTools().checks,
    resolver: { query: away },
    mailAuth: { spf: away, dmarc: away, dkim: () => verification, arc: () => verification },
    scanner: { scan: away, ping: away },
    virusScanner: { begin: () => ({ write: () => undefined, end: away }), ping: away },
    contentScanner: { scan: away },
    directory: { keepsSettings: true, destination: away, account: away, owns: away, isLocalDomain: away },
  };
}

const SIGNED =
  ' v=1; a=rsa-sha256; c=relaxed/relaxed; d=valhalla.example; s=mail; h=from; bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=; b=AAAA';

const LINE = z.looseObject({ unavailable: z.record(z.string(), z.string()) });

/** One message while every neighbour is away; `rule` is what is to be done about the one check, the others do not matter. */
async function judged(name: string, rule: string) {
  const { toml = '', out } = MADE[name] ?? {};
  const others = Object.keys(MADE).filter((other) => other !== name);
  const unavailable = [...others.map((other) => `${other} = "ignore"`), `${name} = "${rule}"`];
  const config = await configOf(`${toml}[unavailable]\n${unavailable.join('\n')}\n`, CHECKS);
  const tools = testTools();
  const { log, store, registry, keys, quarantine } = tools;
  const session = new Session(config, {
    log,
    store,
    keys,
    quarantine,
    checks: brokenTools(),
    metrics: milterMetrics(registry),
  });
  const decoder = new CommandDecoder();
  decoder.push(Buffer.concat([OFFER_V6, CONNECT, HELO]));
  if (out === true) decoder.push(packet('D', 'M', '{auth_authen}\0zeus@olimpus.example\0'));
  decoder.push(
    Buffer.concat([
      MAIL,
      RCPT,
      DATA,
      packet('L', 'DKIM-Signature\0', `${SIGNED}\0`),
      packet('L', 'From\0 thor@valhalla.example\0'),
      EOH,
      packet('B', 'Hello\r\n'),
      EOM,
    ]),
  );
  let answer = '';
  for (let command = decoder.next(); command !== null; command = decoder.next()) {
    if (command.kind === 'quit') throw new Error('nobody said QUIT');
    answer = (await session.handle(command))?.toString('latin1') ?? '';
  }
  const reason = MADE[name]?.reason ?? 'neighbour';
  return {
    answer,
    verdict: store.decisions[0]?.verdict,
    rule: store.decisions[0]?.rule,
    outcome: store.decisions[0]?.outcomes.find(({ check }) => check === name),
    counted: await metric(registry, 'postern_check_unavailable_total', { check: name, reason }),
    said: LINE.parse(tools.lines.find(({ msg }) => msg === 'message judged')).unavailable[name],
    reason,
  };
}

test.each(
  CONCERNED.flatMap((name) => [
    { name, rule: 'defer', verdict: 'defer', decided: `unavailable:${name}`, says: /y451 4\.7\.0 / },
    { name, rule: 'reject', verdict: 'reject', decided: `unavailable:${name}`, says: /y5\d\d 5\.\d\.\d / },
    { name, rule: 'ignore', verdict: 'accept', decided: 'default', says: /X-Postern-Trace/ },
  ]),
)(
  '$name without its neighbour and the rule $rule: followed, counted, recorded and logged',
  async ({ name, rule, verdict, decided, says }) => {
    const { reason, answer, outcome, ...seen } = await judged(name, rule);
    expect(answer).toMatch(says);
    expect(outcome).toMatchObject({ kind: 'unavailable', check: name, reason });
    expect(seen).toEqual({ verdict, rule: decided, counted: 1, said: `${reason}: it is away` });
  },
);

test('the rule that an operator does not give is to defer, or none where the check only adds what is nice to know', () => {
  const rules = Object.fromEntries(
    CHECKS.filter(({ name }) => CONCERNED.includes(name)).map(({ name, unavailable }) => [name, unavailable]),
  );
  expect(rules).toEqual({
    spf: 'defer',
    virus: 'defer',
    content: 'defer',
    // DMARC, which rests on both, defers where they would have mattered.
    dkim: 'ignore',
    arc: 'ignore',
    dmarc: 'defer',
    author: 'defer',
    settings: 'defer',
    // The settings, which it rests on, defer.
    lists: 'ignore',
    spam: 'defer',
  });
});
