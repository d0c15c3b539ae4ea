import { makeKey, type KeyKind } from '../adapters/key-maker.ts';
import * as store from '../adapters/key-store.ts';
import type { Role } from '../adapters/key-store.ts';
import type { Config } from '../config/config.ts';
import { recordName, type RecordForm } from '../mail/dkim-record.ts';
import { EXIT } from './arguments.ts';
import { systemClock } from './clock.ts';
import type { KeysArguments } from './keys-arguments.ts';
import {
  newSelector,
  planDomain,
  retiresAt,
  type KnownKey,
  type LifeSettings,
  type Step,
  type Task,
} from './keys-plan.ts';
import { Surveyor, viewDomain, type Publications, type ViewedDomain, type ViewedKey } from './keys-view.ts';
import { keyOf, minute, publicationWords, recordOf, serverLines } from './keys-words.ts';

/** The worst of what several domains came to. */
class Status {
  #failed = false;
  #todo = false;
  #unknown = false;

  failed(): void {
    this.#failed = true;
  }

  todo(): void {
    this.#todo = true;
  }

  unknown(): void {
    this.#unknown = true;
  }

  get code(): number {
    if (this.#failed) return EXIT.failed;
    if (this.#todo) return EXIT.todo;
    return this.#unknown ? EXIT.unknown : EXIT.ok;
  }
}

export async function generate(
  config: Config,
  domains: readonly string[],
  wanted: KeysArguments,
): Promise<number> {
  const { signing } = config.file;
  const kinds = wanted.kind === null ? signing.new_keys : [wanted.kind];
  const folder = folderOf(config);
  const status = new Status();
  for (const domain of domains) {
    try {
      for (const kind of kinds) {
        const view = await viewDomain(config, domain);
        const there = view.keys.find(
          ({ role, content }) => role === 'next' && content.ok && content.kind === kind,
        );
        if (there !== undefined) {
          throw new Error(
            `${view.domain}: ${there.selector} is the next ${kind} key already; "postern keys rotate" signs with it`,
          );
        }
        // Of two kinds under one name, only one could be published.
        const selector =
          wanted.selector === null || kinds.length === 1 ? wanted.selector : `${wanted.selector}-${kind}`;
        const made = await storeNew(folder, view, { kind, bits: wanted.bits ?? signing.rsa_bits, selector });
        process.stdout.write(
          `${view.domain}: ${made.selector}: a new ${kind} key, does not sign yet; publish this record\n${await recordFor(config, domain, made.selector, wanted.form)}`,
        );
      }
    } catch (error) {
      fail(error, status);
    }
  }
  return status.code;
}

export async function rotate(
  config: Config,
  domains: readonly string[],
  wanted: KeysArguments,
): Promise<number> {
  const folder = folderOf(config);
  const settings = settingsOf(config);
  const status = new Status();
  await using surveyor = await Surveyor.open(config);
  for (const domain of domains) {
    try {
      const view = await viewDomain(config, domain);
      const before = await surveyor.publications(view);
      const { steps } = planDomain(knownKeys(view, before), settings, systemClock.now(), wanted.now);
      for (const step of steps) await take(step, { config, folder, view, settings, dryRun: wanted.dryRun });
      // What is to be done is told of the keys as they are now.
      const unchanged = steps.length === 0 || wanted.dryRun;
      const after = unchanged ? view : await viewDomain(config, domain);
      const publications = unchanged ? before : await surveyor.publications(after);
      // One rotation is what was asked for.
      const again = wanted.now && !steps.some(({ kind }) => kind === 'promote');
      const rest = planDomain(knownKeys(after, publications), settings, systemClock.now(), again);
      for (const task of rest.tasks) tellTask(task, after, publications, wanted.form, status);
      if (!wanted.dryRun) await store.sweep(folder, domain, systemClock.now());
      if (!wanted.quiet && steps.length === 0 && rest.tasks.length === 0) {
        process.stdout.write(`${view.domain}: nothing to do\n`);
      }
    } catch (error) {
      fail(error, status);
    }
  }
  return status.code;
}

export async function retire(
  config: Config,
  domains: readonly string[],
  wanted: KeysArguments,
): Promise<number> {
  const folder = folderOf(config);
  const settings = settingsOf(config);
  const status = new Status();
  for (const domain of domains) {
    try {
      const view = await viewDomain(config, domain);
      const meant = view.keys.filter(
        ({ selector, listed }) => !listed && (wanted.selector ?? selector) === selector,
      );
      let told = false;
      for (const key of meant) {
        const up = wanted.now
          ? key.role === 'old' || key.role === 'next'
          : key.role === 'old' && systemClock.now() >= retiresAt(key, settings.queueLifetimeMs);
        if (up) {
          const step = { kind: 'retire', selector: key.selector } as const;
          await take(step, { config, folder, view, settings, dryRun: wanted.dryRun });
          process.stdout.write(
            `${view.domain}: ${key.selector}: this record can go: ${recordName(key.selector, view.domain)} TXT\n`,
          );
          status.todo();
          told = true;
        } else if (key.role === 'old' && !wanted.quiet) {
          const when = minute(retiresAt(key, settings.queueLifetimeMs));
          process.stdout.write(`${view.domain}: ${key.selector}: its record must stay until ${when}\n`);
          told = true;
        } else if (key.role === 'private' && wanted.selector !== null) {
          throw new Error(
            `${view.domain}: ${key.selector} signs; "postern keys rotate ${view.domain} --now" goes on to the next key`,
          );
        }
      }
      if (wanted.selector !== null && meant.length === 0)
        throw new Error(`${view.domain}: there is no key ${wanted.selector}`);
      if (!told && !wanted.quiet) process.stdout.write(`${view.domain}: nothing to do\n`);
    } catch (error) {
      fail(error, status);
    }
  }
  return status.code;
}

interface Work {
  readonly config: Config;
  readonly folder: string;
  readonly view: ViewedDomain;
  readonly settings: LifeSettings;
  readonly dryRun: boolean;
}

async function take(step: Step, { config, folder, view, settings, dryRun }: Work): Promise<void> {
  const say = (text: string): void => {
    process.stdout.write(`${view.domain}: ${dryRun ? '(not done) ' : ''}${text}\n`);
  };
  switch (step.kind) {
    case 'generate': {
      if (dryRun) {
        say(`a new ${step.keyKind} key is made`);
        break;
      }
      // What was made a moment ago has a name already.
      const current = await viewDomain(config, view.folder);
      const made = await storeNew(folder, current, {
        kind: step.keyKind,
        bits: config.file.signing.rsa_bits,
        selector: null,
      });
      say(`${made.selector}: a new ${step.keyKind} key, does not sign yet`);
      break;
    }
    case 'promote': {
      const now = systemClock.now();
      const others = step.others.map((selector) => named(view, selector, ['private']));
      if (!dryRun) await store.promote(named(view, step.selector, ['next']), others, now);
      say(`${step.selector}: signs from now on`);
      const until = minute(retiresAt({ since: now }, settings.queueLifetimeMs));
      for (const { selector } of others)
        say(`${selector}: signs no more; its record must stay until ${until}`);
      break;
    }
    case 'retire': {
      const key = named(view, step.selector, ['old', 'next']);
      if (!key.content.ok) throw new Error(`${view.domain} is left as it is: ${key.content.why}`);
      if (!dryRun) await store.retire(key, key.content.text);
      say(`${step.selector}: private key deleted`);
      break;
    }
    case 'forget':
      if (!dryRun) await store.forget(named(view, step.selector, ['retired']));
      say(`${step.selector}: its record is gone, done with it`);
      break;
  }
}

function tellTask(
  task: Task,
  view: ViewedDomain,
  publications: Publications,
  form: RecordForm,
  status: Status,
): void {
  const { domain } = view;
  const { selector } = task;
  const key = keyOf(view, selector, ROLES_OF[task.kind]);
  const publication = key === undefined ? undefined : publications.get(key);
  if (key === undefined || publication === undefined) throw new Error(`${domain}: ${selector} is gone`);
  const head = `${domain}: ${selector}: `;
  const servers = serverLines(publication);
  switch (task.kind) {
    case 'publish': {
      const why = task.due ? 'signing waits for it' : 'it signs when its turn comes';
      process.stdout.write(
        `${head}publish this record, ${why} (${publicationWords(publication)})\n${servers}${recordOf(key, form)}`,
      );
      status.todo();
      break;
    }
    case 'restore':
      process.stdout.write(
        `${head}publish this record again, mail is signed with it (${publicationWords(publication)})\n${servers}${recordOf(key, form)}`,
      );
      status.todo();
      break;
    case 'remove':
      process.stdout.write(
        `${head}take this record out of DNS: ${recordName(selector, domain)} TXT\n${servers}`,
      );
      status.todo();
      break;
    case 'unknown':
      process.stdout.write(`${head}${publicationWords(publication)}\n${servers}`);
      status.unknown();
      break;
  }
}

const ROLES_OF = {
  publish: ['next'],
  restore: ['private', 'old'],
  remove: ['retired'],
  unknown: ['next', 'private', 'old', 'retired'],
} as const satisfies Record<Task['kind'], readonly Role[]>;

/** @throws {Error} when one of them can't be read: what there is would not be known */
function knownKeys({ domain, keys }: ViewedDomain, publications: Publications): readonly KnownKey[] {
  return keys.flatMap((key): readonly KnownKey[] => {
    const { selector, role, since, content, listed, own, path } = key;
    if (listed) return [];
    if (!content.ok) throw new Error(`${domain} is left as it is: ${content.why}`);
    if (!own) throw new Error(`${domain} is left as it is: ${path} is a link to another file`);
    const publication = publications.get(key);
    return publication === undefined ? [] : [{ selector, role, kind: content.kind, since, publication }];
  });
}

function named(view: ViewedDomain, selector: string, roles: readonly Role[]): ViewedKey {
  const key = keyOf(view, selector, roles);
  if (key === undefined) throw new Error(`${view.domain}: ${selector} is gone`);
  return key;
}

async function storeNew(
  folder: string,
  view: ViewedDomain,
  {
    kind,
    bits,
    selector,
  }: { readonly kind: KeyKind; readonly bits: number; readonly selector: string | null },
): Promise<{ readonly selector: string }> {
  const taken = new Set(view.keys.map((key) => key.selector));
  if (selector !== null && taken.has(selector))
    throw new Error(`${view.domain}: there is a key ${selector} already`);
  const chosen = selector ?? newSelector(kind, systemClock.now(), taken);
  const pem = await makeKey(kind, bits);
  await store.storeNext(folder, { domain: view.folder, selector: chosen }, pem);
  return { selector: chosen };
}

async function recordFor(
  config: Config,
  domain: string,
  selector: string,
  form: RecordForm,
): Promise<string> {
  return recordOf(named(await viewDomain(config, domain), selector, ['next']), form);
}

function settingsOf({ file: { signing } }: Config): LifeSettings {
  return {
    newKeys: signing.new_keys,
    rotateEveryMs: signing.rotate_every,
    queueLifetimeMs: signing.queue_lifetime,
  };
}

function folderOf({ signing: { folder } }: Config): string {
  if (folder === null) {
    throw new Error(
      'there is no folder for keys: say in the configuration where it is, signing.folder = "keys"',
    );
  }
  return folder;
}

function fail(error: unknown, status: Status): void {
  process.stderr.write(`postern: ${error instanceof Error ? error.message : String(error)}\n`);
  status.failed();
}
