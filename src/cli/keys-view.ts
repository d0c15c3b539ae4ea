import { createPublicKey } from 'node:crypto';
import { resolve } from 'node:path';

import { createResolver, systemServers } from '../adapters/dns.ts';
import type { KeyKind } from '../adapters/key-maker.ts';
import { publicationOf, publicDataOf, type Publication } from '../adapters/key-publication.ts';
import { listDomains, listKeys, type StoredKey } from '../adapters/key-store.ts';
import { ZoneServers } from '../adapters/zone-servers.ts';
import type { Config } from '../config/config.ts';
import { readSmallFile } from '../config/files.ts';
import { readSigningKey } from '../config/keys.ts';
import { KEY_RECORD_LIMIT, parseKeyRecord } from '../mail/dkim-key.ts';
import { recordText } from '../mail/dkim-record.ts';
import { systemClock } from './clock.ts';

/** A key of a domain, with what it says in DNS. */
export interface ViewedKey extends StoredKey {
  readonly content:
    | {
        readonly ok: true;
        readonly kind: KeyKind;
        /** `RSA 2048 bits` */
        readonly words: string;
        /** p= */
        readonly data: string;
        /** The whole record. */
        readonly text: string;
      }
    | { readonly ok: false; readonly why: string };
  /** In a file of its own, outside the folder: it is looked at, and left where it is. */
  readonly listed: boolean;
}

export interface ViewedDomain {
  readonly domain: string;
  /** The name of its folder: the same, but for upper case. */
  readonly folder: string;
  readonly keys: readonly ViewedKey[];
}

/** Answers that are kept while the command runs; they are about servers, not about keys. */
const CACHE_ENTRIES = 10_000;

/** The longest all servers of one record may take, with those that are found on the way. */
const SURVEY_MS = 60_000;

/** Records asked about at once. */
const SURVEYS_AT_ONCE = 16;

/**
 * The domains that were named, or all that have keys.
 *
 * @param everywhere also those that have no folder, but files of their own
 * @throws {Error} with what is wrong, for people
 */
export async function domainsOf(
  { signing }: Config,
  named: readonly string[],
  everywhere: boolean,
): Promise<readonly string[]> {
  const folders = signing.folder === null ? [] : await listDomains(signing.folder);
  if (named.length > 0) {
    return named.map(
      (name) => folders.find((folder) => folder.toLowerCase() === name.toLowerCase()) ?? name.toLowerCase(),
    );
  }
  const listed = !everywhere ? [] : signing.keys.map(({ domain }) => domain);
  return [...new Set([...folders, ...listed])].toSorted();
}

/** @throws {Error} with what is wrong, for people */
export async function viewDomain({ signing }: Config, domain: string): Promise<ViewedDomain> {
  const stored = signing.folder === null ? [] : await listKeys(signing.folder, domain);
  const keys: ViewedKey[] = [];
  for (const key of stored) keys.push({ ...key, content: await contentOf(key), listed: false });
  for (const { domain: of, selector, path } of signing.keys) {
    if (of !== domain.toLowerCase()) continue;
    // One file may be named and lie in the folder.
    if (keys.some((key) => resolve(key.path) === path)) continue;
    const key = {
      domain: of,
      selector,
      role: 'private',
      since: 0,
      path,
      own: false,
    } as const satisfies StoredKey;
    keys.push({ ...key, content: await contentOf(key), listed: true });
  }
  return { domain: domain.toLowerCase(), folder: domain, keys };
}

async function contentOf({ role, path }: StoredKey): Promise<ViewedKey['content']> {
  if (role === 'retired') return recordIn(path);
  const reading = await readSigningKey(path);
  if (!reading.ok) return { ok: false, why: `${reading.wrong}; ${reading.remedy}` };
  const data = publicDataOf(createPublicKey(reading.key));
  const kind = reading.algorithm === 'ed25519-sha256' ? 'ed25519' : 'rsa';
  const bits = reading.key.asymmetricKeyDetails?.modulusLength ?? 0;
  const words = kind === 'rsa' ? `RSA ${bits} bits` : 'Ed25519';
  return { ok: true, kind, words, data, text: recordText(kind, data) };
}

async function recordIn(path: string): Promise<ViewedKey['content']> {
  const reading = await readSmallFile(path, KEY_RECORD_LIMIT + 1);
  if (!reading.ok) return { ok: false, why: `${path} can't be used: ${reading.detail}` };
  const text = reading.octets.toString('latin1').trimEnd();
  const record = parseKeyRecord(text);
  if (typeof record === 'string') return { ok: false, why: `${path} holds no key record: ${record}` };
  const { type: kind, data } = record;
  return { ok: true, kind, words: kind === 'rsa' ? 'RSA' : 'Ed25519', data, text };
}

/** Whether each key of some domains is published; by key, those that can't be used are left out. */
export type Publications = ReadonlyMap<ViewedKey, Publication>;

/** Asks the name servers themselves. */
export class Surveyor implements AsyncDisposable {
  readonly #resolver: ReturnType<typeof createResolver>;
  readonly #zones: ZoneServers;

  constructor(resolver: ReturnType<typeof createResolver>, timeoutMs: number) {
    this.#resolver = resolver;
    this.#zones = new ZoneServers(resolver, { timeoutMs });
  }

  static async open({ file: { dns } }: Config): Promise<Surveyor> {
    const servers = dns.servers.length > 0 ? dns.servers : await systemServers();
    const options = { servers, timeoutMs: dns.timeout, cacheEntries: CACHE_ENTRIES };
    return new Surveyor(createResolver(options, systemClock), dns.timeout);
  }

  async publications({ keys }: ViewedDomain): Promise<Publications> {
    const found = new Map<ViewedKey, Publication>();
    for (let at = 0; at < keys.length; at += SURVEYS_AT_ONCE) {
      await Promise.all(
        keys.slice(at, at + SURVEYS_AT_ONCE).map(async (key) => {
          if (!key.content.ok) return;
          const signal = AbortSignal.timeout(SURVEY_MS);
          found.set(key, await publicationOf(this.#zones, key, key.content.data, signal));
        }),
      );
    }
    return found;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#resolver[Symbol.asyncDispose]();
  }
}
