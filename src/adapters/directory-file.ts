import { isDeepStrictEqual } from 'node:util';

import { lowerAscii, type Address } from '../mail/address.ts';
import type { Account, Destination, Directory } from '../ports/directory.ts';
import type { Clock } from '../ports/clock.ts';
import { AccountSettings, type AccountEntry } from './account-settings.ts';
import {
  readAliases,
  readMailboxes,
  targetsOf,
  type AliasTable,
  type MailboxTable,
} from './directory-tables.ts';
import {
  destinationSteps,
  ownershipSteps,
  settleNow,
  withoutExtension,
  type Answer,
  type Question,
} from './destination-steps.ts';
import { WatchedFile } from './watched-file.ts';

export interface DirectoryOptions {
  /** Domains whose addresses are mailboxes; those of the mailbox files are so as well. */
  readonly mailboxDomains: readonly string[];
  /** Domains of ours that have aliases only. */
  readonly aliasDomains: readonly string[];
  /** Files with mailboxes. None: every address in a mailbox domain may be one. */
  readonly mailboxes: readonly string[];
  /** Texts of Postfix's virtual_alias_maps, in their order. */
  readonly aliases: readonly string[];
  readonly accounts: readonly AccountEntry[];
  /** Postfix's recipient_delimiter. */
  readonly delimiter: string;
}

/** The parts that a directory over files and other sources is made of. */
export interface FileAnswers {
  readonly listsMailboxes: boolean;
  readonly delimiter: string;
  readonly keepsSettings: boolean;
  answer(question: Question): Answer;
  /** [[account]], with what others say of the account below it. @param name in lower case */
  account(name: string, others: Account | null): Account;
}

export interface DirectoryEvents {
  /** A file was read again; `faults`: lines left out. */
  loaded(path: string, faults: AliasTable['faults']): void;
  /** A file could not be read again; what it held before stays in use. */
  failed(path: string, why: string): void;
}

export interface FileDirectory extends Directory, Disposable {
  /** What the files say, for a directory that asks others as well. Where there are no files of mailboxes, they know of none. */
  readonly files: FileAnswers;
  /** Looks at the files now; it does so by itself every few seconds. Never rejects. */
  refresh(): Promise<void>;
  /** Other settings in place of those it has. When that fails, they stay. @throws {Error} with what is wrong, for people */
  configure(options: DirectoryOptions): Promise<void>;
}

/** How often the files are looked at. */
const LOOK_EVERY_MS = 5000;

/** @throws {Error} when a file can't be read */
export async function openDirectory(
  options: DirectoryOptions,
  clock: Clock,
  events: DirectoryEvents,
): Promise<FileDirectory> {
  const tables = new Tables(options, events);
  await tables.load();
  return new FilesDirectory(tables, clock, events);
}

class FilesDirectory implements FileDirectory {
  readonly #clock: Clock;
  readonly #events: DirectoryEvents;
  readonly #timer: NodeJS.Timeout;
  #tables: Tables;
  #refreshing: Promise<void> | null = null;

  constructor(tables: Tables, clock: Clock, events: DirectoryEvents) {
    this.#tables = tables;
    this.#clock = clock;
    this.#events = events;
    this.#timer = setInterval(() => void this.refresh(), LOOK_EVERY_MS).unref();
  }

  get files(): FileAnswers {
    return this.#tables;
  }

  get keepsSettings(): boolean {
    return this.#tables.keepsSettings;
  }

  destination(recipient: Address): Destination {
    return this.#tables.destination(recipient);
  }

  account(name: string): Account {
    return this.#tables.account(lowerAscii(name), null);
  }

  owns(login: string, address: Address): boolean {
    return this.#tables.owns(lowerAscii(login), address);
  }

  isLocalDomain(domain: string): boolean {
    return this.#tables.isLocal(lowerAscii(domain));
  }

  refresh(): Promise<void> {
    this.#refreshing ??= this.#tables.refresh(this.#clock.now()).finally(() => {
      this.#refreshing = null;
    });
    return this.#refreshing;
  }

  async configure(options: DirectoryOptions): Promise<void> {
    if (isDeepStrictEqual(options, this.#tables.options)) return;
    const tables = new Tables(options, this.#events);
    await tables.load();
    this.#tables = tables;
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }
}

/** The files, and what follows from them. */
class Tables implements FileAnswers {
  readonly options: DirectoryOptions;
  readonly #events: DirectoryEvents;
  readonly #accounts: AccountSettings;
  readonly #aliasFiles: readonly WatchedFile<AliasTable>[];
  readonly #mailboxFiles: readonly WatchedFile<MailboxTable>[];
  readonly #mailboxDomains: ReadonlySet<string>;
  readonly #aliasDomains: ReadonlySet<string>;

  constructor(options: DirectoryOptions, events: DirectoryEvents) {
    this.options = options;
    this.#events = events;
    this.#accounts = new AccountSettings(options.accounts);
    this.#aliasFiles = options.aliases.map((path) => new WatchedFile(path, (text) => readAliases(text)));
    this.#mailboxFiles = options.mailboxes.map(
      (path) => new WatchedFile(path, (text) => readMailboxes(text)),
    );
    this.#mailboxDomains = new Set(options.mailboxDomains.map(lowerAscii));
    this.#aliasDomains = new Set(options.aliasDomains.map(lowerAscii));
  }

  async load(): Promise<void> {
    for (const file of [...this.#aliasFiles, ...this.#mailboxFiles]) {
      const content = await file.load();
      this.#events.loaded(file.path, 'faults' in content ? content.faults : null);
    }
  }

  async refresh(now: number): Promise<void> {
    for (const file of [...this.#aliasFiles, ...this.#mailboxFiles]) {
      try {
        if (!(await file.refresh(now))) continue;
        const { content } = file;
        this.#events.loaded(file.path, content !== null && 'faults' in content ? content.faults : null);
      } catch (error) {
        this.#events.failed(file.path, causeOf(error));
      }
    }
  }

  destination(recipient: Address): Destination {
    return settleNow(destinationSteps(recipient, this.options.delimiter), (question) =>
      this.answer(question),
    );
  }

  get listsMailboxes(): boolean {
    return this.#mailboxFiles.length > 0;
  }

  get keepsSettings(): boolean {
    return this.#accounts.keepSettings;
  }

  get delimiter(): string {
    return this.options.delimiter;
  }

  account(name: string, others: Account | null): Account {
    let quota: number | null | undefined;
    for (const { content } of this.#mailboxFiles) quota ??= content?.mailboxes.get(name);
    return others === null ? this.#accounts.of(name, quota) : this.#accounts.over(name, others, quota);
  }

  owns(login: string, address: Address): boolean {
    const steps = ownershipSteps(login, address, this.options.delimiter);
    return settleNow(steps, (question) => this.answer(question));
  }

  answer({ kind, key }: Question): Answer {
    switch (kind) {
      case 'alias':
        return this.#targets(key);
      case 'mailboxes':
        return this.#hasMailboxes(key) ? YES : undefined;
      case 'domain':
        return this.isLocal(key) ? YES : undefined;
      case 'mailbox': {
        const at = key.lastIndexOf('@');
        const user = this.#mailbox(key.slice(0, at), key.slice(at + 1));
        return user === null ? undefined : [user];
      }
    }
  }

  isLocal(domain: string): boolean {
    return (
      this.#hasMailboxes(domain) ||
      this.#aliasDomains.has(domain) ||
      this.#aliasFiles.some(({ content }) => content?.domains.has(domain) === true)
    );
  }

  #hasMailboxes(domain: string): boolean {
    return (
      this.#mailboxDomains.has(domain) ||
      this.#mailboxFiles.some(({ content }) => content?.domains.has(domain) === true)
    );
  }

  #targets(key: string): readonly string[] | undefined {
    for (const { content } of this.#aliasFiles) {
      const targets = content === null ? undefined : targetsOf(content, key);
      if (targets !== undefined) return targets;
    }
    return undefined;
  }

  /** Dovecot's user name of an address in a mailbox domain; null: there is no such mailbox. */
  #mailbox(local: string, domain: string): string | null {
    const bare = withoutExtension(local, this.options.delimiter);
    const usual = `${bare}@${domain}`;
    if (this.#mailboxFiles.length === 0) return usual;
    // As Postfix looks into virtual_mailbox_maps; a passwd-file can have users without a domain.
    const named = [`${local}@${domain}`, usual, ...(this.#mailboxDomains.has(domain) ? [bare] : [])];
    const found = named.find((name) => this.#isListed(name));
    if (found !== undefined) return found;
    return this.#isListed(`@${domain}`) ? usual : null;
  }

  #isListed(name: string): boolean {
    return this.#mailboxFiles.some(({ content }) => content?.mailboxes.has(name) === true);
  }
}

/** Of a domain: it is. */
const YES: Answer = Object.freeze([]);

function causeOf(error: unknown): string {
  const texts: string[] = [];
  for (let link = error; link instanceof Error && texts.length < 3; link = link.cause)
    texts.push(link.message);
  return texts.join(': ');
}
