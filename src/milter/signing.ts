import { matchesAddress } from '../checks/address-pattern.ts';
import type { Signing, TableEntry } from '../config/signing.ts';
import { authorDomain, authors } from '../mail/author.ts';
import { lowerAscii, parseMailbox } from '../mail/address.ts';
import type { HeaderList } from '../mail/header.ts';
import type { MailFacts } from '../checks/check.ts';
import { NO_KEYS, type DomainKeys, type SigningKeys } from '../ports/signing-keys.ts';
import { withinDeadline } from '../runtime/deadline.ts';

/** How many parent domains are looked at for keys that are for subdomains too: those nearest to the name. */
export const PARENTS_LIMIT = 16;

/** How long the source of the keys may take for one answer. */
const KEYS_DEADLINE_MS = 5000;

/** Whom a message is from, for the choice of its keys. */
interface Identity {
  /** `user@domain` or a login, in lower case. */
  readonly address: string;
  /** Empty: a login without a domain. */
  readonly domain: string;
}

/**
 * The keys that sign this message. Each identity of the configuration is asked in turn, and the first that has keys, or should have, is the one:
 * the signing table's first entry that fits, else the keys of its domain, else those of the nearest parent domain whose keys are for subdomains
 * too.
 *
 * @throws when the source of the keys does not answer
 */
export async function chooseKeys(
  signing: Signing,
  facts: MailFacts,
  headers: HeaderList,
  source: SigningKeys,
): Promise<DomainKeys> {
  for (const kind of signing.identity) {
    const identity = identityOf(kind, facts, headers);
    if (identity === null) continue;
    const entry = signing.table.find(({ senders }) =>
      senders.some((pattern) => matchesAddress(pattern, identity.address)),
    );
    const found =
      entry === undefined
        ? signing.tableOnly
          ? NO_KEYS
          : await ownKeys(identity.domain, source)
        : await tableKeys(entry, source);
    if (found.kind !== 'none') return found;
  }
  return NO_KEYS;
}

function identityOf(
  kind: Signing['identity'][number],
  { client, sender }: MailFacts,
  headers: HeaderList,
): Identity | null {
  switch (kind) {
    case 'from': {
      const domain = authorDomain(headers);
      const [first] = domain === null ? [] : (authors(headers) ?? []);
      return first === undefined
        ? null
        : { address: lowerAscii(`${first.local}@${first.domain}`), domain: first.domain };
    }
    case 'envelope':
      if (sender.kind === 'null') return null;
      return {
        address: lowerAscii(`${sender.address.local}@${sender.address.domain}`),
        domain: sender.address.domain,
      };
    case 'login':
      if (client.login === null) return null;
      return { address: lowerAscii(client.login), domain: parseMailbox(client.login).domain };
  }
}

async function ownKeys(domain: string, source: SigningKeys): Promise<DomainKeys> {
  if (domain === '') return NO_KEYS;
  const own = await ask(source, domain);
  if (own.kind !== 'none') return own;
  let parent = domain;
  for (let count = 0; count < PARENTS_LIMIT; count++) {
    const dot = parent.indexOf('.');
    if (dot === -1) break;
    parent = parent.slice(dot + 1);
    const found = await ask(source, parent);
    switch (found.kind) {
      case 'usable': {
        const keys = found.keys.filter(({ subdomains }) => subdomains);
        if (keys.length > 0) return { kind: 'usable', keys };
        break;
      }
      case 'broken':
      case 'unpublished':
        if (found.subdomains) return found;
        break;
      case 'none':
        break;
    }
  }
  return NO_KEYS;
}

/** One that an entry names and that is not there is broken: the entry says that this mail is to be signed. */
async function tableKeys({ keys: wanted }: TableEntry, source: SigningKeys): Promise<DomainKeys> {
  const keys = [];
  let why = '';
  let unpublished = false;
  for (const { domain, selector } of wanted) {
    const found = await ask(source, domain);
    if (found.kind === 'broken') why ||= found.why;
    unpublished ||= found.kind === 'unpublished';
    if (found.kind !== 'usable') continue;
    unpublished ||= selector !== null && found.leftOut?.includes(selector) === true;
    keys.push(...(selector === null ? found.keys : found.keys.filter((key) => key.selector === selector)));
  }
  if (keys.length > 0) return { kind: 'usable', keys };
  if (unpublished) return { kind: 'unpublished', subdomains: false };
  return { kind: 'broken', subdomains: false, why: why || 'the signing table names a key that is not there' };
}

function ask(source: SigningKeys, domain: string): Promise<DomainKeys> | DomainKeys {
  const answer = source.keysOf(domain);
  return answer instanceof Promise
    ? withinDeadline(answer, KEYS_DEADLINE_MS, 'the source of the keys')
    : answer;
}
