import { dirname, resolve } from 'node:path';

import { openDirectory, type DirectoryOptions, type FileDirectory } from '../adapters/directory-file.ts';
import type { Config } from '../config/config.ts';
import type { Clock } from '../ports/clock.ts';
import type { Log } from '../runtime/telemetry.ts';

/** The directory of a configuration. @throws {Error} when one of its files can't be read */
export async function openSiteDirectory(config: Config, clock: Clock, log: Log): Promise<SiteDirectory> {
  const directory = await openDirectory(optionsOf(config), clock, {
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
  return new SiteDirectory(directory, log);
}

/** The directory of the running process. */
export class SiteDirectory implements Disposable {
  readonly directory: FileDirectory;
  readonly #log: Log;

  constructor(directory: FileDirectory, log: Log) {
    this.directory = directory;
    this.#log = log;
  }

  /** Takes over the settings of a configuration that was read again; those in use stay when its files can't be read. */
  async reload(config: Config): Promise<void> {
    try {
      await this.directory.configure(optionsOf(config));
    } catch (error) {
      this.#log.error({ err: error }, 'the new [directory] could not be read, the one in use stays');
    }
  }

  [Symbol.dispose](): void {
    this.directory[Symbol.dispose]();
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
