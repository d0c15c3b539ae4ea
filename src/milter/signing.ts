import { matchesAddress } from '../checks/address-pattern.ts';
import { parseKeyName, type KeyName, type Signing } from '../config/signing.ts';
import { authorDomain, authors } from '../mail/author.ts';
import { lowerAscii, parseMailbox } from '../mail/address.ts';
import type { HeaderList } from '../mail/header.ts';
import type { MailFacts } from '../checks/check.ts';
import type { Directory } from '../ports/directory.ts';
import { NO_KEYS, type DomainKeys, type SigningKey, type SigningKeys } from '../ports/signing-keys.ts';
import { withinDeadline } from '../runtime/deadline.ts';

/** How many parent domains are looked at for keys that are for subdomains too: those nearest to the name. */
export const PARENTS_LIMIT = 16;

/** How long the source of the keys, or of the settings of accounts, may take for one answer. */
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
 * what the signing table has for it, else what the settings of its account name, else the keys of its domain, else those of the nearest parent
 * domain whose keys are for subdomains too.
 *
 * @throws when the source of the keys does not answer
 */
export async function chooseKeys(
  signing: Signing,
  facts: MailFacts,
  headers: HeaderList,
  source: SigningKeys,
  directory: Pick<Directory, 'account'>,
): Promise<DomainKeys> {
  for (const kind of signing.identity) {
    const identity = identityOf(kind, facts, headers);
    if (identity === null) continue;
    const found = await keysOf(identity, signing, source, directory);
    if (found.kind !== 'none') return found;
  }
  return NO_KEYS;
}

async function keysOf(
  { address, domain }: Identity,
  signing: Signing,
  source: SigningKeys,
  directory: Pick<Directory, 'account'>,
): Promise<DomainKeys> {
  const listed = tableNames(signing, address);
  if (listed.length > 0) return await namedKeys(listed, source);
  if (signing.accountKeys) {
    const names = await accountNames(address, directory);
    if (names === null) return { kind: 'broken', subdomains: false, why: BAD_NAME };
    if (names.length > 0) return await namedKeys(names, source);
  }
  return signing.tableOnly ? NO_KEYS : await ownKeys(domain, source);
}

const BAD_NAME =
  'signing_keys of an account holds something else than domains and names of keys, "SELECTOR._domainkey.DOMAIN"';

/** What the signing table has for a sender: its first entry that fits, or all of them. */
function tableNames({ table, tableMatch }: Signing, address: string): readonly KeyName[] {
  const fits = ({ senders }: Signing['table'][number]): boolean =>
    senders.some((pattern) => matchesAddress(pattern, address));
  switch (tableMatch) {
    case 'first':
      return table.find(fits)?.keys ?? [];
    case 'all':
      return table.filter(fits).flatMap(({ keys }) => keys);
  }
}

/** null: they can't be understood. */
async function accountNames(
  address: string,
  directory: Pick<Directory, 'account'>,
): Promise<readonly KeyName[] | null> {
  const { signingKeys = [] } = await directory.account(address, AbortSignal.timeout(KEYS_DEADLINE_MS));
  const names = signingKeys.map(parseKeyName).filter((name) => name !== null);
  return names.length === signingKeys.length ? names : null;
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

/** One that is named and not there is broken: who named it says that this mail is to be signed. */
async function namedKeys(wanted: readonly KeyName[], source: SigningKeys): Promise<DomainKeys> {
  // Each signs once, however many entries name it.
  const keys = new Set<SigningKey>();
  let why = '';
  let unpublished = false;
  for (const { domain, selector } of wanted) {
    const found = await ask(source, domain);
    if (found.kind === 'broken') why ||= found.why;
    unpublished ||= found.kind === 'unpublished';
    if (found.kind !== 'usable') continue;
    unpublished ||= selector !== null && found.leftOut?.includes(selector) === true;
    for (const key of found.keys) if (selector === null || key.selector === selector) keys.add(key);
  }
  if (keys.size > 0) return { kind: 'usable', keys: [...keys] };
  if (unpublished) return { kind: 'unpublished', subdomains: false };
  return { kind: 'broken', subdomains: false, why: why || 'a key is named that is not there' };
}

function ask(source: SigningKeys, domain: string): Promise<DomainKeys> | DomainKeys {
  return withinDeadline(source.keysOf(domain), KEYS_DEADLINE_MS, 'the source of the keys');
}
