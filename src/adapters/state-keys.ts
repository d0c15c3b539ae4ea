import { createHash, hash } from 'node:crypto';

import type { Correspondence, Triplet } from '../ports/greylist.ts';

/**
 * Keys that are the same in every state, so that what one holds can be moved to another. Where people never look at a key, a digest stands for
 * it: however long remote parties choose their addresses, it takes the same few octets.
 */

/** Characters of a digest, 132 bits: that two of five million are the same is less likely than a fault of the disk. */
const LENGTH = 22;
/** Of these, so many say the network of a triplet: 24 bits. */
const NETWORK_LENGTH = 4;

/** Stands for the words in their order, however long they are. */
export function digestOf(...words: readonly string[]): string {
  const lengths = words.map((word) => word.length).join(',');
  return hash('sha256', `${lengths}:${words.join('')}`, 'base64url').slice(0, LENGTH);
}

/** What the names of all triplets of a network begin with, so that a Cluster can keep them where it keeps the network. */
export function networkPart(network: string): string {
  return digestOf(network).slice(0, NETWORK_LENGTH);
}

export function tripletName({ network, sender, recipient }: Triplet): string {
  return networkPart(network) + digestOf(network, sender, recipient).slice(NETWORK_LENGTH);
}

/** The name of a triplet: the part that says its network, and the rest. */
export function tripletParts(name: string): readonly [network: string, rest: string] {
  return [name.slice(0, NETWORK_LENGTH), name.slice(NETWORK_LENGTH)];
}

export function correspondentName({ local, remote }: Correspondence): string {
  return digestOf(local, remote);
}

/** The longest part of a key that is written out. */
const PART_LIMIT = 320;
const DIGEST_LENGTH = 43;

/** A text as part of a key: written out for people, and of bounded length; long ones stay apart by a digest. */
export function bounded(text: string): string {
  if (text.length <= PART_LIMIT) return text;
  const digest = createHash('sha256').update(text).digest('base64url');
  return `${text.slice(0, PART_LIMIT - DIGEST_LENGTH)}${digest}`;
}
