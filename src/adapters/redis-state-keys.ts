import type { EntryKind } from '../ports/state-entries.ts';
import { networkPart, tripletParts } from './state-keys.ts';

/** Under which keys Redis has the state. What stands in braces says the slot of a Cluster: what belongs together has the same. */

export function counterKey(prefix: string, limit: string, key: string): string {
  return `${prefix}limit:{${key}}${limit}`;
}

/** The counters that can be listed, by when they lapse. Not in a Cluster. */
export function countersKey(prefix: string): string {
  return `${prefix}limits`;
}

/** Triplets share their slot with their network, and with some other networks. */
export function tripletKey(prefix: string, name: string): string {
  const [network, rest] = tripletParts(name);
  return `${prefix}triplet:{${network}}${rest}`;
}

export function networkKey(prefix: string, network: string): string {
  return `${prefix}network:{${networkPart(network)}}${network}`;
}

export function correspondentKey(prefix: string, name: string): string {
  return `${prefix}wrote:${name}`;
}

/** What messages hold of a mailbox: octets, and when that lapses. */
export function heldKeys(prefix: string, mailbox: string): readonly [held: string, lapses: string] {
  return [`${prefix}held:{${mailbox}}`, `${prefix}lapses:{${mailbox}}`];
}

/** The mailboxes that a message holds room in. */
export function messageKey(prefix: string, trace: string): string {
  return `${prefix}message:{${trace}}`;
}

export function fullKey(prefix: string, mailbox: string): string {
  return `${prefix}full:{${mailbox}}`;
}

export function seenKey(prefix: string, set: string, subject: string): string {
  return `${prefix}seen:{${subject}}${set}`;
}

/** The hours of a subject; with an hour at the end, its counts. */
export function hoursKey(prefix: string, subject: string): string {
  return `${prefix}tally:{${subject}}`;
}

/** Standings by login, and when they lapse. */
export function standingsKeys(prefix: string): readonly [standings: string, lapse: string] {
  return [`${prefix}{standings}`, `${prefix}{standings}lapse`];
}

/** A key that a scan of all keys found, taken apart; there is one for each entry, or for each group of entries that is under one key. */
export type StateKey =
  | { readonly entry: 'counter'; readonly limit: string; readonly key: string }
  | { readonly entry: 'triplet' | 'correspondent'; readonly name: string }
  | { readonly entry: 'network'; readonly network: string }
  | { readonly entry: 'reservation'; readonly mailbox: string }
  | { readonly entry: 'full-mailbox'; readonly mailbox: string }
  | { readonly entry: 'sighting'; readonly set: string; readonly subject: string }
  | { readonly entry: 'tally'; readonly subject: string; readonly hour: number }
  | { readonly entry: 'standing' };

/** What kind of key begins with which word. The other keys of reservations, tallies and standings come with these. */
const WORDS: ReadonlyMap<string, EntryKind> = new Map([
  ['limit', 'counter'],
  ['triplet', 'triplet'],
  ['network', 'network'],
  ['wrote', 'correspondent'],
  ['lapses', 'reservation'],
  ['full', 'full-mailbox'],
  ['seen', 'sighting'],
  ['tally', 'tally'],
]);

/** null: not one of the state's, or one that belongs to another. Names after the brace have none. */
export function readStateKey(prefix: string, key: string): StateKey | null {
  if (!key.startsWith(prefix)) return null;
  const text = key.slice(prefix.length);
  if (text === '{standings}') return { entry: 'standing' };
  const colon = text.indexOf(':');
  const kind = WORDS.get(text.slice(0, colon));
  const rest = text.slice(colon + 1);
  if (kind === 'correspondent') return /^[\w-]{22}$/.test(rest) ? { entry: kind, name: rest } : null;
  const [, inner, outer] = /^\{(.*)\}([^}]*)$/s.exec(rest) ?? [];
  if (kind === undefined || inner === undefined || outer === undefined) return null;
  switch (kind) {
    case 'counter':
      return { entry: kind, limit: outer, key: inner };
    case 'triplet':
      return /^[\w-]{22}$/.test(inner + outer) ? { entry: kind, name: inner + outer } : null;
    case 'network':
      return inner === networkPart(outer) ? { entry: kind, network: outer } : null;
    case 'reservation':
    case 'full-mailbox':
      return outer === '' ? { entry: kind, mailbox: inner } : null;
    case 'sighting':
      return { entry: kind, set: outer, subject: inner };
    case 'tally':
      return /^-?\d{1,16}$/.test(outer) ? { entry: kind, subject: inner, hour: Number(outer) } : null;
    case 'standing':
      return null;
  }
}
