import { dirname, resolve } from 'node:path';
import { isDeepStrictEqual } from 'node:util';

import { openDirectory, type DirectoryOptions, type FileDirectory } from '../adapters/directory-file.ts';
import { SourcedDirectory } from '../adapters/directory-sourced.ts';
import type { DirectorySource } from '../adapters/directory-source.ts';
import { LOOK_RESULTS, type LookResult } from '../adapters/lookup-cache.ts';
import type { Config } from '../config/config.ts';
import type { Address } from '../mail/address.ts';
import type { Clock } from '../ports/clock.ts';
import type { Account, Destination, Directory } from '../ports/directory.ts';
import { counter, gauge } from '../runtime/metrics.ts';
import type { Log, Registry } from '../runtime/telemetry.ts';
import { openSources, SOURCE_KINDS, type SourceKind } from './open-sources.ts';

/** The directory of a configuration. @throws {Error} when one of its files can't be read */
export async function openSiteDirectory(
  config: Config,
  clock: Clock,
  log: Log,
  registry: Registry,
): Promise<SiteDirectory> {
  const files = await openDirectory(optionsOf(config), clock, {
    loaded(path, faults) {
      log.debug({ path }, 'directory file read');
      if (faults === null) return;
      const { count, first } = faults;
      log.warn({ path, lines: count, first }, 'lines of a directory file are left out');
    },
    failed(path, why) {
      log.error({ path, why }, 'a directory file could not be read, what it held before stays in use');
    },
  });
  const site = new SiteDirectory(files, clock, log, registry);
  await site.connect(config);
  return site;
}

/** The directory of the running process: stays the same while what it stands on changes. */
export class SiteDirectory implements Directory, Disposable {
  /** For /readyz: the sources that are asked, as far as known. */
  readonly states: Record<string, string> = {};
  readonly #files: FileDirectory;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #looked: (result: LookResult) => void;
  readonly #up: (source: SourceKind, value: number) => void;
  /** null: files are all there is, whose answers need no waiting. */
  #sourced: SourcedDirectory | null = null;
  #sources: readonly DirectorySource[] = [];
  #settings: unknown = null;
  /** The layouts that come with Postern know of quotas and senders alone, and so does Dovecot. */
  #hasColumns = false;

  constructor(files: FileDirectory, clock: Clock, log: Log, registry: Registry) {
    this.#files = files;
    this.#clock = clock;
    this.#log = log;
    const looks = counter<'result'>(registry, {
      name: 'postern_directory_lookups_total',
      help: 'Keys looked up in databases, LDAP and Dovecot, by where the answer came from.',
      labels: { result: LOOK_RESULTS },
    });
    this.#looked = (result) => looks.inc({ result });
    const up = gauge<'source'>(registry, {
      name: 'postern_directory_up',
      help: 'Whether a source of [directory] answered when it was last asked; 0 also where it is not used.',
      labels: { source: SOURCE_KINDS },
    });
    this.#up = (source, value) => up.set({ source }, value);
  }

  /** Databases and LDAP, as they are now: reload() makes others of them. */
  get sources(): readonly DirectorySource[] {
    return this.#sources;
  }

  get directory(): Directory {
    return this;
  }

  get keepsSettings(): boolean {
    return this.#hasColumns || this.#files.keepsSettings;
  }

  destination(recipient: Address, signal: AbortSignal): Promise<Destination> | Destination {
    return (this.#sourced ?? this.#files).destination(recipient, signal);
  }

  account(name: string, signal: AbortSignal): Promise<Account> | Account {
    return (this.#sourced ?? this.#files).account(name, signal);
  }

  owns(login: string, address: Address, signal: AbortSignal): Promise<boolean> | boolean {
    return (this.#sourced ?? this.#files).owns(login, address, signal);
  }

  isLocalDomain(domain: string, signal: AbortSignal): Promise<boolean> | boolean {
    return (this.#sourced ?? this.#files).isLocalDomain(domain, signal);
  }

  /** Takes over the settings of a configuration that was read again; those in use stay when its files can't be read. */
  async reload(config: Config): Promise<void> {
    try {
      await this.#files.configure(optionsOf(config));
      await this.connect(config);
    } catch (error) {
      this.#log.error({ err: error }, 'the new [directory] could not be read, the one in use stays');
    }
  }

  /** Asks the sources of a configuration from now on, with what was remembered of the others forgotten. */
  async connect(config: Config): Promise<void> {
    const { sql, ldap, userdb, cache } = config.file.directory;
    const settings = {
      sql,
      ldap,
      userdb,
      cache,
      files: config.directory,
      dovecot: userdb ? config.file.dovecot : null,
    };
    if (isDeepStrictEqual(settings, this.#settings)) return;
    const sources = await openSources(config, this.#clock, (kind, where) => ({
      up: () => this.#told(kind, where, 'there', null),
      down: (why) => this.#told(kind, where, 'not there', why),
    }));
    this.#sourced?.[Symbol.dispose]();
    this.#settings = settings;
    this.#hasColumns = (sql.account ?? []).length > 0 || (ldap.account ?? []).length > 0;
    this.#sources = sources;
    for (const kind of Object.keys(this.states)) delete this.states[kind];
    for (const kind of SOURCE_KINDS) this.#up(kind, 0);
    const { ttl: ttlMs, negative_ttl: negativeMs, stale: staleMs, entries } = cache;
    const options = { ttlMs, negativeMs, staleMs, entries };
    this.#sourced =
      sources.length === 0
        ? null
        : new SourcedDirectory(() => this.#files.files, sources, options, this.#clock, this.#looked);
  }

  [Symbol.dispose](): void {
    this.#sourced?.[Symbol.dispose]();
    this.#files[Symbol.dispose]();
  }

  #told(kind: SourceKind, address: string, state: string, why: string | null): void {
    this.states[kind] = state;
    this.#up(kind, why === null ? 1 : 0);
    if (why === null) this.#log.info({ neighbour: kind, address, state }, 'neighbour');
    else this.#log.error({ neighbour: kind, address, state, why }, 'neighbour');
  }
}

function optionsOf({ path, file }: Config): DirectoryOptions {
  const folder = path === null ? process.cwd() : dirname(path);
  const { mailbox_domains, alias_domains, mailboxes, aliases } = file.directory;
  return {
    mailboxDomains: mailbox_domains,
    aliasDomains: alias_domains,
    mailboxes: mailboxes.map((name) => resolve(folder, name)),
    aliases: aliases.map((name) => resolve(folder, name)),
    accounts: file.account,
    delimiter: file.site.recipient_delimiter,
  };
}
