import { lowerAscii, settingsKey } from '../mail/address.ts';
import { sessionKey } from '../mail/envelope.ts';
import type { Account } from '../ports/directory.ts';
import type { Hit } from '../ports/limits.ts';
import type { Finding } from '../verdict/finding.ts';
import { selects, type Selection } from './address-pattern.ts';
import { admissionCheck, type CheckTools, type RcptFacts } from './check.ts';
import { countHits } from './limit-excess.ts';
import { accountName, limitKey, senderKey, type KeyTerms } from './limit-keys.ts';
import { countedConnections, ledgerOf, type Charge, type Ledger } from './limit-ledger.ts';
import { LIMIT_OPTIONS, limitCode, limitCodes, type Limit, type LimitOptions } from './limit-options.ts';
import { after, type Soon } from './soon.ts';

/** How much may be sent and received: the operator's limits, counted where all policyd processes share them. */
export const limitsCheck = admissionCheck({
  name: 'limits',
  stage: 'admission',
  summary:
    'Limits on messages, recipients, bytes and connections within a time, for logins, senders, clients, recipients or everything: none until there is a [[checks.limits.limit]]. What the findings mean, limits.NAME, is the action of each limit.',
  directions: ['in', 'out'],
  needs: [],
  codes: {},
  codesOf: limitCodes,
  // A limit that can't be counted for a while does less harm than all mail that is deferred for as long.
  unavailable: 'ignore',
  deadline: '2s',
  options: LIMIT_OPTIONS,
  ready: (_tools, options) => options.limit.length > 0,
  run({ facts, tools, options, signal }) {
    const ledger = ledgerOf(facts.identity);
    const wanted = countersOf(facts, options, tools.delimiter).filter((counter) =>
      isNew(counter, facts, ledger, tools),
    );
    if (wanted.length === 0) return [];
    const accounts = accountsOf(wanted, tools, signal);
    return after(accounts, (known) =>
      count(
        wanted.map((counter) => charge(counter, facts, known)),
        facts,
        ledger,
        tools,
      ),
    );
  },
  undo({ facts, tools }) {
    giveBack(tools, ledgerOf(facts.identity).takeRecipient(facts.recipient.raw));
  },
});

/** A limit that this recipient's mail falls under, and its counter. */
interface Counter {
  readonly limit: Limit;
  readonly key: string;
  /** Whose own value holds; null: nobody's. */
  readonly account: string | null;
}

function countersOf(facts: RcptFacts, options: LimitOptions, delimiter: string): Counter[] {
  const { ipv4_prefix: ipv4, ipv6_prefix: ipv6 } = options;
  const terms: KeyTerms = { delimiter, prefixes: { ipv4, ipv6 } };
  const counters: Counter[] = [];
  for (const limit of options.limit) {
    if (!concerns(limit, facts, delimiter)) continue;
    const key = limitKey(limit.per, facts, terms);
    if (key !== null) counters.push({ limit, key, account: accountName(limit.per, facts, delimiter) });
  }
  return counters;
}

function concerns(limit: Limit, facts: RcptFacts, delimiter: string): boolean {
  const { client, direction, sender, recipient } = facts;
  const { login } = client;
  return (
    (limit.direction === 'both' || limit.direction === direction) &&
    (!limit.without_login || login === null) &&
    (all(limit.logins) || selects(limit.logins, login === null ? null : lowerAscii(login))) &&
    (all(limit.senders) || selects(limit.senders, senderKey(sender, delimiter))) &&
    (all(limit.recipients) || selects(limit.recipients, settingsKey(recipient, delimiter))) &&
    (limit.clients.text.length === 0 || limit.clients.has(client.address)) &&
    (limit.not_clients.text.length === 0 || !limit.not_clients.has(client.address))
  );
}

function all({ patterns }: Selection): boolean {
  return patterns.length === 0;
}

function isNew({ limit, key }: Counter, facts: RcptFacts, ledger: Ledger, tools: CheckTools): boolean {
  if (ledger.has(limit, key, facts.recipient.raw)) return false;
  if (limit.of !== 'connections') return true;
  const id = connectionId(limit, key, facts);
  return id === null || !countedConnections(tools.state).has(id, tools.clock.now());
}

/** null when the session has no name: then each message counts as one. */
function connectionId({ name }: Limit, key: string, { client }: RcptFacts): string | null {
  const session = sessionKey(client);
  return session === null ? null : `${name}\0${key}\0${session}`;
}

type Accounts = ReadonlyMap<string, Account>;

const NO_ACCOUNTS: Accounts = new Map();

function accountsOf(
  counters: readonly Counter[],
  { directory }: CheckTools,
  signal: AbortSignal,
): Soon<Accounts> {
  if (counters.every(({ account }) => account === null)) return NO_ACCOUNTS;
  const accounts = new Map<string, Account>();
  const pending: Promise<void>[] = [];
  let last: string | null = null;
  for (const { account: name } of counters) {
    // Nearly always all limits are about one account.
    if (name === null || name === last || accounts.has(name)) continue;
    last = name;
    const account = directory.account(name, signal);
    if (account instanceof Promise) pending.push(account.then((found) => void accounts.set(name, found)));
    else accounts.set(name, account);
  }
  return pending.length === 0 ? accounts : Promise.all(pending).then(() => accounts);
}

function charge({ limit, key, account }: Counter, facts: RcptFacts, accounts: Accounts): Charge {
  const own = account === null ? undefined : accounts.get(account)?.limits.get(limit.name);
  const hit: Hit = {
    limit: limitCode(limit),
    key,
    algorithm: limit.algorithm,
    most: own ?? limit.most,
    periodMs: limit.period,
    cost: costOf(limit, facts),
    enforced: isEnforced(limit),
  };
  return { limit, hit, recipient: facts.recipient.raw };
}

function costOf({ of }: Limit, { size }: RcptFacts): number {
  switch (of) {
    case 'messages':
    case 'recipients':
    case 'connections':
      return 1;
    case 'bytes':
      // Of a size that was not declared no more is known than that it is not 0; the end of the message tells.
      return Math.max(1, size ?? 1);
  }
}

/** What is let through, be it into the hold queue, counts however much there is, and stands in nobody's way. */
function isEnforced({ action, shadow }: Limit): boolean {
  switch (action) {
    case 'defer':
    case 'reject':
      return !shadow;
    case 'hold':
    case 'warn':
      return false;
  }
}

async function count(
  charges: readonly Charge[],
  facts: RcptFacts,
  ledger: Ledger,
  tools: CheckTools,
): Promise<readonly Finding[]> {
  const { findings, onlookers } = await countHits(charges, facts, tools);
  if (onlookers !== null) {
    // The recipient is refused: what only looks on must not count him either.
    giveBack(tools, onlookers);
    return findings;
  }
  remember(charges, facts, ledger, tools);
  return findings;
}

function remember(charges: readonly Charge[], facts: RcptFacts, ledger: Ledger, tools: CheckTools): void {
  const now = tools.clock.now();
  const ofMessage: Charge[] = [];
  for (const entry of charges) {
    const { limit, hit } = entry;
    const id = limit.of === 'connections' ? connectionId(limit, hit.key, facts) : null;
    // A session took place whatever becomes of its recipients.
    if (id === null) ofMessage.push(entry);
    else countedConnections(tools.state).add(id, now);
  }
  ledger.add(ofMessage);
}

/** Nobody waits for this. When the state can't be reached just now, which it tells of itself, the count stays, and lapses with its period. */
export function giveBack({ state }: CheckTools, hits: readonly Hit[]): void {
  if (hits.length > 0) state.refund(hits).catch(() => undefined);
}
