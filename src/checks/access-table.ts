import { settingsKey } from '../mail/address.ts';
import type { RcptFacts } from './check.ts';
import { MailboxTable, NameTable } from './names.ts';
import { NetworkTable, parseIp, parseNetwork, type IpAddress } from './networks.ts';

/** One entry of the list, as it was written. Conditions of several kinds all have to hold; of one kind, one of them. */
export interface AccessEntry {
  readonly client: readonly string[];
  readonly client_name: readonly string[];
  readonly helo: readonly string[];
  readonly sender: readonly string[];
  readonly login: readonly string[];
  readonly recipients: readonly string[];
}

/** What is compared: one recipient of one message, in the form of the tables. */
interface Subject {
  readonly address: IpAddress | null;
  /** Verified name; empty: none. */
  readonly name: string;
  /** Name from the PTR record alone; empty: none. */
  readonly reverseName: string;
  readonly helo: string;
  /** `<>` for the null path. */
  readonly sender: string;
  /** The sender without its extension. */
  readonly plainSender: string;
  readonly login: string;
  readonly recipient: string;
  readonly recipientDomain: string;
}

const KINDS = ['client', 'login', 'sender', 'client_name', 'helo'] as const;
type Kind = (typeof KINDS)[number];

/** Positions of entries under one value: those for everybody, and those for some recipients only. */
interface Bucket {
  readonly everyone: number[];
  readonly some: Map<string, number[]>;
}

/**
 * A list of entries, of which the first that matches counts. Each entry is found by the values of one of its kinds, so that a long list costs no more than a
 * short one; what else the entry asks for is then looked at.
 */
export class AccessTable<E extends AccessEntry> {
  readonly entries: readonly E[];
  readonly #client = new NetworkTable<Bucket>();
  readonly #names = {
    client_name: new NameTable<Bucket>(),
    helo: new NameTable<Bucket>(),
    sender: new MailboxTable<Bucket>(),
    login: new NameTable<Bucket>(),
  };
  /** Entries that are about recipients alone. */
  readonly #rest: Bucket = { everyone: [], some: new Map() };
  readonly #more: readonly Condition[];

  constructor(entries: readonly E[]) {
    this.entries = entries;
    this.#more = entries.map((entry, position) => this.#add(entry, position));
  }

  /** Patterns that are tried one by one. */
  get slow(): number {
    const { client_name: name, helo, sender, login } = this.#names;
    return name.slow + helo.slow + sender.slow + login.slow;
  }

  /**
   * The entries that match, in their order, up to and including the first of which `counts` is true.
   *
   * @param firm whether the entry speaks for somebody: a name that the client only claims does not do for it
   */
  find(
    facts: RcptFacts,
    delimiter: string,
    firm: (entry: E) => boolean,
    counts: (entry: E) => boolean,
  ): readonly E[] {
    const subject = subjectOf(facts, delimiter);
    const found = new Set<number>();
    for (const bucket of this.#buckets(subject)) {
      for (const position of bucket.everyone) found.add(position);
      if (bucket.some.size === 0) continue;
      for (const position of bucket.some.get(subject.recipient) ?? []) found.add(position);
      for (const position of bucket.some.get(`@${subject.recipientDomain}`) ?? []) found.add(position);
    }
    const matching: E[] = [];
    if (found.size === 0) return matching;
    // Positions are few: those under the values of this one message.
    for (const position of [...found].toSorted((a, b) => a - b)) {
      const entry = this.entries[position];
      if (entry === undefined || this.#more[position]?.(subject, firm(entry)) !== true) continue;
      matching.push(entry);
      if (counts(entry)) break;
    }
    return matching;
  }

  *#buckets(subject: Subject): Generator<Bucket, void> {
    yield this.#rest;
    const { address, name, reverseName, helo, sender, plainSender, login } = subject;
    const { client_name: names, helo: helos, sender: senders, login: logins } = this.#names;
    if (address !== null) yield* this.#client.matches(address);
    if (names.size > 0) {
      if (name !== '') yield* names.matches(name);
      if (reverseName !== '' && reverseName !== name) yield* names.matches(reverseName);
    }
    if (helos.size > 0 && helo !== '') yield* helos.matches(helo);
    if (senders.size > 0) {
      yield* senders.matches(sender);
      if (plainSender !== sender) yield* senders.matches(plainSender);
    }
    if (logins.size > 0 && login !== '') yield* logins.matches(login);
  }

  /** Puts the entry under the values of its first kind; returns what else it asks for. */
  #add(entry: E, position: number): Condition {
    const kinds = KINDS.filter((kind) => entry[kind].length > 0);
    const [first] = kinds;
    if (first === undefined) put(this.#rest, entry.recipients, position);
    else for (const pattern of entry[first]) put(this.#bucket(first, pattern), entry.recipients, position);
    // Where a claimed name may have led here, the first kind is looked at again.
    const rest = kinds
      .filter((kind) => kind !== first || kind === 'client_name')
      .map((kind) => condition(kind, entry[kind]));
    return (subject, firm) => rest.every((holds) => holds(subject, firm));
  }

  #bucket(kind: Kind, pattern: string): Bucket {
    if (kind === 'client') {
      const network = parseNetwork(pattern);
      if (network === null) throw new TypeError(`${pattern} is no network`);
      const known = this.#client.get(network);
      if (known !== undefined) return known;
      const fresh = { everyone: [], some: new Map<string, number[]>() };
      this.#client.set(network, fresh);
      return fresh;
    }
    const table = this.#names[kind];
    const known = table.get(pattern);
    if (known !== undefined) return known;
    const fresh = { everyone: [], some: new Map<string, number[]>() };
    table.set(pattern, fresh);
    return fresh;
  }
}

type Condition = (subject: Subject, firm: boolean) => boolean;

function put(bucket: Bucket, recipients: readonly string[], position: number): void {
  if (recipients.length === 0) bucket.everyone.push(position);
  for (const recipient of recipients) {
    const key = recipient.toLowerCase();
    const positions = bucket.some.get(key);
    if (positions === undefined) bucket.some.set(key, [position]);
    else positions.push(position);
  }
}

function condition(kind: Kind, patterns: readonly string[]): Condition {
  switch (kind) {
    case 'client': {
      const table = new NetworkTable<true>();
      for (const pattern of patterns) {
        const network = parseNetwork(pattern);
        if (network !== null) table.set(network, true);
      }
      return ({ address }) => address !== null && table.has(address);
    }
    case 'client_name': {
      const table = filled(new NameTable<true>(), patterns);
      return ({ name, reverseName }, firm) =>
        (name !== '' && table.has(name)) || (!firm && reverseName !== '' && table.has(reverseName));
    }
    case 'helo': {
      const table = filled(new NameTable<true>(), patterns);
      return ({ helo }) => helo !== '' && table.has(helo);
    }
    case 'sender': {
      const table = filled(new MailboxTable<true>(), patterns);
      return ({ sender, plainSender }) =>
        table.has(sender) || (plainSender !== sender && table.has(plainSender));
    }
    case 'login': {
      const table = filled(new NameTable<true>(), patterns);
      return ({ login }) => login !== '' && table.has(login);
    }
  }
}

function filled<T extends { set(pattern: string, value: true): void }>(
  table: T,
  patterns: readonly string[],
): T {
  for (const pattern of patterns) table.set(pattern, true);
  return table;
}

function subjectOf({ client, sender, recipient }: RcptFacts, delimiter: string): Subject {
  const { address } = sender.kind === 'null' ? { address: null } : sender;
  return {
    address: parseIp(client.address),
    name: hostName(client.name),
    reverseName: hostName(client.reverseName),
    helo: hostName(client.helo),
    sender: address === null ? '<>' : `${address.local}@${address.domain}`.toLowerCase(),
    plainSender: address === null ? '<>' : settingsKey(address, delimiter),
    login: (client.login ?? '').toLowerCase(),
    recipient: settingsKey(recipient, delimiter),
    recipientDomain: recipient.domain,
  };
}

function hostName(name: string | null): string {
  if (name === null) return '';
  const lower = name.toLowerCase();
  return lower.endsWith('.') ? lower.slice(0, -1) : lower;
}
