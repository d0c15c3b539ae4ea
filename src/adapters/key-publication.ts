import type { KeyObject } from 'node:crypto';

import { parseTagList } from '../mail/tag-list.ts';
import { recordName } from '../mail/dkim-record.ts';
import { publicKeyOf } from './dkim-keys.ts';
import type { ServerWord, Survey, ZoneServers } from './zone-servers.ts';

/** What one server publishes, held against the key that it should be. */
export type Standing =
  | { readonly kind: 'published' }
  | { readonly kind: 'missing' }
  /** p= is empty. RFC 6376 §3.6.1. */
  | { readonly kind: 'revoked' }
  | { readonly kind: 'malformed'; readonly why: string }
  | { readonly kind: 'mismatch' }
  | { readonly kind: 'silent'; readonly why: string };

export interface ServerStanding {
  readonly zone: string;
  readonly server: string;
  readonly address: string | null;
  readonly standing: Standing;
}

/**
 * `everywhere`: every name server has it. `partly`: some have it, others have it not or did not answer. `nowhere`: of those that answered none has
 * it. `unknown`: nobody answered.
 */
export type Publication = (
  | { readonly state: 'everywhere' | 'partly' | 'nowhere' }
  | { readonly state: 'unknown'; readonly why: string }
) & {
  readonly servers: readonly ServerStanding[];
  /** Whether one of the servers could not be asked. */
  readonly incomplete: boolean;
};

/** @param publicData the key that should be there, as publicDataOf() gives it */
export async function publicationOf(
  zones: ZoneServers,
  { selector, domain }: { readonly selector: string; readonly domain: string },
  publicData: string,
  signal: AbortSignal,
): Promise<Publication> {
  return judgePublication(await zones.texts(recordName(selector, domain), domain, signal), publicData);
}

export function judgePublication(survey: Survey, publicData: string): Publication {
  if (survey.kind === 'failed') return { state: 'unknown', why: survey.why, servers: [], incomplete: true };
  const servers = survey.words.flatMap(({ zone, server, address, said }): ServerStanding[] =>
    said.kind === 'elsewhere' ? [] : [{ zone, server, address, standing: standingOf(said, publicData) }],
  );
  const byServer = Map.groupBy(servers, ({ zone, server }) => `${server} ${zone}`);
  let [having, lacking, silent] = [0, 0, 0];
  for (const group of byServer.values()) {
    const kinds = group.map(({ standing }) => standing.kind).filter((kind) => kind !== 'silent');
    // One of its addresses may not be reachable from here (no IPv6): the others speak for the server, and none may differ.
    if (kinds.length === 0) silent++;
    else if (kinds.every((kind) => kind === 'published')) having++;
    else lacking++;
  }
  const incomplete = silent > 0;
  if (having + lacking === 0) {
    const [first] = servers;
    const why =
      first?.standing.kind === 'silent' ? `${first.server}: ${first.standing.why}` : 'nobody was asked';
    return { state: 'unknown', why, servers, incomplete };
  }
  const seen = servers.some(({ standing }) => standing.kind === 'published');
  if (!seen) return { state: 'nowhere', servers, incomplete };
  return { state: lacking + silent === 0 ? 'everywhere' : 'partly', servers, incomplete };
}

function standingOf(said: Exclude<ServerWord['said'], { kind: 'elsewhere' }>, publicData: string): Standing {
  switch (said.kind) {
    case 'failed':
      return { kind: 'silent', why: said.why };
    case 'texts':
      return judgeTexts(said.texts, publicData);
  }
}

/** @param publicData the key that should be there, as publicDataOf() gives it */
export function judgeTexts(texts: readonly string[], publicData: string): Standing {
  const [text, ...others] = texts;
  if (text === undefined) return { kind: 'missing' };
  // RFC 6376 §3.6.2.2: what a verifier makes of several records is undefined.
  if (others.length > 0)
    return { kind: 'malformed', why: `there are ${texts.length} TXT records where one may be` };
  if (parseTagList(text).tags.get('p') === '') return { kind: 'revoked' };
  const found = publicKeyOf(text);
  switch (found.kind) {
    case 'unusable':
    case 'unknown':
      return { kind: 'malformed', why: found.detail };
    case 'key': {
      const { record, object } = found.key;
      if (publicDataOf(object) !== publicData) return { kind: 'mismatch' };
      // RFC 6376 §3.6.1: h= names the hashes that the key may be used with.
      if (record.hashes !== null && !record.hashes.includes('sha256'))
        return { kind: 'malformed', why: 'h= does not allow sha256' };
      return { kind: 'published' };
    }
  }
}

/** RFC 8410 §4: 12 octets stand before the 32 of the key. */
const ED25519_PREFIX = 12;

/** p= of the record of a public key, in base64. RFC 6376 §3.6.1 as it is practised: SubjectPublicKeyInfo; RFC 8463 §4: the bare key. */
export function publicDataOf(key: KeyObject): string {
  const der = key.export({ type: 'spki', format: 'der' });
  return der.subarray(key.asymmetricKeyType === 'ed25519' ? ED25519_PREFIX : 0).toString('base64');
}
