import { lowerAscii, type Address } from '../mail/address.ts';
import type { Clock } from '../ports/clock.ts';
import type { Account, Destination, Directory } from '../ports/directory.ts';
import { NeighbourError } from '../ports/neighbour-error.ts';
import { accountOf } from './account-columns.ts';
import { ontoDomain } from './account-merge.ts';
import { parseAddressList } from './address-list.ts';
import {
  destinationSteps,
  ownershipSteps,
  settleLater,
  withoutExtension,
  type Answer,
  type Question,
  type Steps,
} from './destination-steps.ts';
import type { FileAnswers } from './directory-file.ts';
import {
  isGathered,
  KEY_LIMIT,
  subjectOf,
  type DirectorySource,
  type Lookup,
  type Row,
} from './directory-source.ts';
import { LookupCache, type CacheOptions, type LookResult } from './lookup-cache.ts';
import { ADDRESS_LIMIT, EXPANSION_LIMIT } from './virtual-aliases.ts';

/** Of a domain: it is. */
const YES: Answer = Object.freeze([]);
const NOTHING_SET: Account = Object.freeze({ limits: new Map(), senders: [] });
/** Postfix defers an alias with more targets than it follows, so more are not kept. */
const TARGETS_KEPT = EXPANSION_LIMIT + 1;

/** Users and aliases in files and in sources elsewhere. For each key the files are asked first, then the sources in their order. */
export class SourcedDirectory implements Directory, Disposable {
  readonly #files: () => FileAnswers;
  readonly #sources: readonly DirectorySource[];
  readonly #domains: Readonly<Record<'mailbox_domain' | 'alias_domain', LookupCache<true>>>;
  readonly #aliases: LookupCache<readonly string[]>;
  readonly #mailboxes: LookupCache<string>;
  readonly #accounts: LookupCache<Account>;

  /** @param files as they are now: they change while the process runs */
  constructor(
    files: () => FileAnswers,
    sources: readonly DirectorySource[],
    options: CacheOptions,
    clock: Clock,
    looked: (result: LookResult) => void,
  ) {
    this.#files = files;
    this.#sources = sources;
    const cache = <T extends {}>(lookup: Lookup, read: (rows: readonly Row[], key: string) => T | null) =>
      new LookupCache<T>(options, clock, async (key) => read(await this.#ask(lookup, key), key), looked);
    this.#domains = {
      mailbox_domain: cache<true>('mailbox_domain', isThere),
      alias_domain: cache<true>('alias_domain', isThere),
    };
    this.#aliases = cache('alias', targetsOf);
    this.#mailboxes = cache('mailbox', userOf);
    this.#accounts = cache('account', accountOf);
  }

  get keepsSettings(): boolean {
    return this.#has('account') || this.#files().keepsSettings;
  }

  async destination(recipient: Address, signal: AbortSignal): Promise<Destination> {
    return await this.#settle(destinationSteps(recipient, this.#files().delimiter), signal);
  }

  async account(name: string, signal: AbortSignal): Promise<Account> {
    const key = lowerAscii(name);
    return this.#files().account(key, this.#has('account') ? await this.#account(key, signal) : null);
  }

  /** An account is asked for by its name, and by `@domain` for what is set for all of its domain. */
  async #account(key: string, signal: AbortSignal): Promise<Account | null> {
    const at = key.lastIndexOf('@');
    const own = this.#accounts.get(key, signal);
    if (at <= 0) return await own;
    const [account, domain] = await Promise.all([own, this.#accounts.get(key.slice(at), signal)]);
    if (domain === null) return account;
    return ontoDomain(domain, account ?? NOTHING_SET);
  }

  async owns(login: string, address: Address, signal: AbortSignal): Promise<boolean> {
    return await this.#settle(ownershipSteps(lowerAscii(login), address, this.#files().delimiter), signal);
  }

  async isLocalDomain(domain: string, signal: AbortSignal): Promise<boolean> {
    return (await this.#answer({ kind: 'domain', key: lowerAscii(domain) }, signal)) !== undefined;
  }

  [Symbol.dispose](): void {
    for (const source of this.#sources) source[Symbol.dispose]();
  }

  #settle<T>(steps: Steps<T>, signal: AbortSignal): Promise<T> {
    return settleLater(steps, (question) => {
      // An alias can lead to a thousand questions.
      if (signal.aborted) throw new NeighbourError('given up', { cause: signal.reason });
      return this.#answer(question, signal);
    });
  }

  async #answer(question: Question, signal: AbortSignal): Promise<Answer> {
    const { kind, key } = question;
    const files = this.#files();
    switch (kind) {
      case 'alias':
        return (
          files.answer(question) ?? (await this.#found(this.#aliases, 'alias', key, signal)) ?? undefined
        );
      case 'mailboxes':
        return files.answer(question) ?? (await this.#isDomain('mailbox_domain', key, signal));
      case 'domain':
        return (
          files.answer(question) ??
          (await this.#isDomain('mailbox_domain', key, signal)) ??
          (await this.#isDomain('alias_domain', key, signal))
        );
      case 'mailbox':
        return await this.#mailbox(question, files, signal);
    }
  }

  /** As Postfix looks into virtual_mailbox_maps. Where nobody has a list of mailboxes, each address in the domain may be one. */
  async #mailbox(question: Question, files: FileAnswers, signal: AbortSignal): Promise<Answer> {
    const listed = files.listsMailboxes ? files.answer(question) : undefined;
    if (listed !== undefined) return listed;
    if (!this.#has('mailbox')) return files.listsMailboxes ? undefined : files.answer(question);
    const { local, domain } = subjectOf(question.key);
    const bare = `${withoutExtension(local, files.delimiter)}@${domain}`;
    for (const name of bare === question.key ? [bare] : [question.key, bare]) {
      const user = await this.#mailboxes.get(name, signal);
      if (user !== null) return [user];
    }
    return undefined;
  }

  async #isDomain(
    lookup: 'mailbox_domain' | 'alias_domain',
    domain: string,
    signal: AbortSignal,
  ): Promise<Answer> {
    // Questions about a domain have it behind the @, as those about addresses do.
    return (await this.#found(this.#domains[lookup], lookup, `@${domain}`, signal)) === null
      ? undefined
      : YES;
  }

  async #found<T extends {}>(
    cache: LookupCache<T>,
    lookup: Lookup,
    key: string,
    signal: AbortSignal,
  ): Promise<T | null> {
    // What is longer is in no table, and is not remembered either.
    if (key.length > KEY_LIMIT || !this.#has(lookup)) return null;
    return await cache.get(key, signal);
  }

  #has(lookup: Lookup): boolean {
    return this.#sources.some((source) => source.has(lookup));
  }

  async #ask(lookup: Lookup, key: string): Promise<readonly Row[]> {
    const subject = subjectOf(key);
    const gathered: Row[] = [];
    for (const source of this.#sources) {
      if (!source.has(lookup)) continue;
      const rows = await source.ask(lookup, subject);
      if (!isGathered(lookup) && rows.length > 0) return rows;
      gathered.push(...rows);
    }
    return gathered;
  }
}

function isThere(rows: readonly Row[]): true | null {
  return rows.length > 0 ? true : null;
}

/** All values of all rows: addresses, or lists of them. null: there is no such alias. */
function targetsOf(rows: readonly Row[]): readonly string[] | null {
  const targets: string[] = [];
  for (const row of rows) {
    for (const text of [...row.values()].flat()) {
      for (const target of parseAddressList(text)) {
        if (targets.length >= TARGETS_KEPT) return targets;
        // One that is too long for Postfix stays too long.
        targets.push(target.length > ADDRESS_LIMIT ? target.slice(0, ADDRESS_LIMIT + 1) : target);
      }
    }
  }
  return rows.length > 0 && targets.length > 0 ? targets : null;
}

/** Dovecot's name of the user: of the row, or the address where the row has no value. */
function userOf(rows: readonly Row[], key: string): string | null {
  const [row] = rows;
  if (row === undefined) return null;
  const name = [...row.values()].flat().find((value) => value !== '');
  return lowerAscii(name ?? key);
}
