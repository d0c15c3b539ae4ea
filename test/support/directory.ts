import { chmod, writeFile } from 'node:fs/promises';
import { performance } from 'node:perf_hooks';

import { pino } from 'pino';
import { Registry } from 'prom-client';

import { openSiteDirectory, type SiteDirectory } from '../../src/cli/open-directory.ts';
import { loadConfig } from '../../src/config/load.ts';
import { parseMailbox } from '../../src/mail/address.ts';
import type { Account, Destination } from '../../src/ports/directory.ts';
import { NeighbourError } from '../../src/ports/neighbour-error.ts';
import { privateFolder } from './neighbours/folder.ts';

export interface OpenedDirectory extends AsyncDisposable {
  readonly site: SiteDirectory;
  readonly folder: string;
  /** Lines of the log, as JSON. */
  readonly lines: readonly string[];
  /** Adds to the time that the directory sees. */
  pass(milliseconds: number): void;
  destination(address: string, signal?: AbortSignal): Promise<Destination>;
  account(name: string): Promise<Account>;
  owns(login: string, address: string): Promise<boolean>;
  isLocal(domain: string): Promise<boolean>;
  metrics(): Promise<string>;
}

export const SECRET = 'the golden fleece of colchis';
const PATIENCE_MS = 20_000;

/** The directory of a configuration, as daemons have it. A file `password` with SECRET is in the folder of the configuration. */
export async function openDirectoryOf(config: string, secret = SECRET): Promise<OpenedDirectory> {
  await using cleanup = new AsyncDisposableStack();
  const folder = cleanup.use(await privateFolder('directory'));
  await writeFile(folder.join('password'), secret);
  await chmod(folder.join('password'), 0o600);
  const path = folder.join('postern.toml');
  await writeFile(path, config);
  const loaded = await loadConfig(path);
  if (!loaded.ok) throw new Error(JSON.stringify(loaded.problems));
  let ahead = 0;
  const lines: string[] = [];
  const log = pino({ level: 'debug' }, { write: (line: string) => void lines.push(line) });
  const registry = new Registry();
  const clock = { now: () => Date.now() + ahead, elapsed: () => performance.now() + ahead };
  const site = cleanup.use(await openSiteDirectory(loaded.config, clock, log, registry));
  const owned = cleanup.move();
  return {
    site,
    folder: folder.path,
    lines,
    pass(milliseconds) {
      ahead += milliseconds;
    },
    destination: async (address, signal = patience()) => await site.destination(mailbox(address), signal),
    account: async (name) => await site.account(octets(name), patience()),
    owns: async (login, address) => await site.owns(octets(login), mailbox(address), patience()),
    isLocal: async (domain) => await site.isLocalDomain(octets(domain), patience()),
    metrics: () => registry.metrics(),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** Only mailboxes of ours. */
export function mailboxes(...names: readonly string[]): Destination {
  return { kind: 'delivered', mailboxes: names.map(octets), elsewhere: false };
}

export const UNKNOWN: Destination = { kind: 'unknown' };

/** Whether an error is one of a neighbour, for a reason like this. */
export function causedBy(reason: RegExp): (error: unknown) => boolean {
  return (error) =>
    error instanceof NeighbourError && error.cause instanceof Error && reason.test(error.cause.message);
}

function patience(): AbortSignal {
  return AbortSignal.timeout(PATIENCE_MS);
}

function mailbox(text: string): ReturnType<typeof parseMailbox> {
  return parseMailbox(octets(text));
}

/** As the envelope has it: one character for each octet. */
function octets(text: string): string {
  return Buffer.from(text, 'utf8').toString('latin1');
}
