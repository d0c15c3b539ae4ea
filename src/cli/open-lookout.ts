import { publicationOf, type Publication } from '../adapters/key-publication.ts';
import { ZoneServers } from '../adapters/zone-servers.ts';
import type { Unpublished } from '../config/key-life.ts';
import { logText } from '../mail/reply.ts';
import type { Clock } from '../ports/clock.ts';
import type { Resolver } from '../ports/resolver.ts';
import type { SigningKeys } from '../ports/signing-keys.ts';
import { gauge } from '../runtime/metrics.ts';
import type { Log, Registry } from '../runtime/telemetry.ts';
import type { FoundKey } from '../adapters/key-file.ts';
import { KeyLookout, type LookForKey } from './key-lookout.ts';
import type { KeyWatch } from './open-keys.ts';
import { PublishedKeys } from './published-keys.ts';

/** Keys that have a series of their own; however many there are, the metrics stay a page. */
export const SERIES_LIMIT = 1000;

/** Servers named in a log line. */
const SERVERS_NAMED = 8;

const STATES = [
  'everywhere',
  'partly',
  'nowhere',
  'unknown',
] as const satisfies readonly Publication['state'][];

export interface PublicationMetrics {
  /** null: it is watched no more. */
  set(
    key: { readonly domain: string; readonly selector: string },
    before: Publication['state'] | null,
    state: Publication['state'] | null,
  ): void;
}

export function publicationMetrics(registry: Registry): PublicationMetrics {
  const published = gauge<'domain' | 'selector'>(registry, {
    name: 'postern_dkim_key_published',
    help: `Whether all name servers of its domain have a signing key: 1 or 0, not there while unknown. Of the first ${SERIES_LIMIT} keys.`,
    together: 'min',
    labels: { domain: [], selector: [] },
  });
  const keys = gauge<'state'>(registry, {
    name: 'postern_dkim_keys',
    help: 'Signing keys, by whether all name servers of their domain have them ("everywhere"), some, none of those that answered, or nobody answered.',
    together: 'max',
    labels: { state: STATES },
  });
  const shown = new Set<string>();
  return {
    set({ domain, selector }, before, state) {
      if (before !== null) keys.dec({ state: before });
      if (state !== null) keys.inc({ state });
      const name = `${selector} ${domain}`;
      if (state === null || state === 'unknown') {
        if (shown.delete(name)) published.remove({ domain, selector });
        return;
      }
      if (!shown.has(name) && shown.size >= SERIES_LIMIT) return;
      shown.add(name);
      published.set({ domain, selector }, state === 'everywhere' ? 1 : 0);
    },
  };
}

export interface LookoutOptions {
  /** Finds the name servers, which are then asked themselves. */
  readonly resolver: Resolver;
  readonly timeoutMs: number;
  readonly clock: Clock;
  readonly registry: Registry;
  readonly log: Log;
  /** Tests have their own. */
  readonly look?: LookForKey;
}

/** What the running process knows of its keys in DNS. */
export class SiteLookout implements KeyWatch, AsyncDisposable {
  readonly #lookout: KeyLookout;
  #mode: Unpublished;
  #published: PublishedKeys | null = null;

  constructor(mode: Unpublished, options: LookoutOptions) {
    this.#mode = mode;
    this.#lookout = openLookout(options, () => this.#mode);
  }

  /** The keys of a source, as far as they are to sign. */
  over(source: SigningKeys): SigningKeys {
    return (this.#published = new PublishedKeys(source, this.#lookout, this.#mode));
  }

  loaded(file: FoundKey): void {
    if (this.#mode !== 'sign') this.#lookout.loaded(file);
  }

  gone(file: FoundKey): void {
    this.#lookout.gone(file);
  }

  /** Takes over the setting of a configuration that was read again. */
  configure(mode: Unpublished, found: readonly FoundKey[]): void {
    this.#mode = mode;
    this.#published?.configure(mode);
    if (mode === 'sign') this.#lookout.clear();
    else for (const file of found) this.#lookout.loaded(file);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#lookout[Symbol.asyncDispose]();
  }
}

function openLookout(options: LookoutOptions, mode: () => Unpublished): KeyLookout {
  const { resolver, timeoutMs, clock, registry, log } = options;
  const metrics = publicationMetrics(registry);
  const zones = new ZoneServers(resolver, { timeoutMs });
  const look: LookForKey = options.look ?? ((key, data, signal) => publicationOf(zones, key, data, signal));
  return new KeyLookout(look, clock, {
    changed({ domain, selector }, before, publication) {
      metrics.set({ domain, selector }, before, publication.state);
      const fields = { domain, selector };
      const used = mode() === 'skip' ? 'it does not sign' : 'it signs all the same';
      switch (publication.state) {
        case 'everywhere':
          log.info(fields, 'signing key is in DNS');
          break;
        case 'partly':
          log.warn({ ...fields, servers: lacking(publication) }, 'signing key is not on all name servers');
          break;
        case 'nowhere':
          log.warn({ ...fields, servers: lacking(publication), effect: used }, 'signing key is not in DNS');
          break;
        case 'unknown':
          log.warn({ ...fields, why: logText(publication.why) }, 'not known whether a signing key is in DNS');
          break;
      }
    },
    dropped(key, before) {
      metrics.set(key, before, null);
    },
    failed({ domain, selector }, error) {
      log.error({ domain, selector, err: error }, 'a signing key could not be looked for in DNS');
    },
  });
}

function lacking({ servers }: Publication): readonly string[] {
  return servers
    .filter(({ standing }) => standing.kind !== 'published')
    .slice(0, SERVERS_NAMED)
    .map(({ server, address, standing }) => {
      const why = 'why' in standing ? `: ${standing.why}` : '';
      return logText(`${server}${address === null ? '' : ` (${address})`} ${standing.kind}${why}`);
    });
}
