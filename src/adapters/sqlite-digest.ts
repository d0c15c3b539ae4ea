import { hash } from 'node:crypto';

/** Characters of a digest, 132 bits: that two of five million are the same is less likely than a fault of the disk. */
const LENGTH = 22;

/** Stands for the words in their order, however long they are. */
export function digestOf(...words: readonly string[]): string {
  const lengths = words.map((word) => word.length).join(',');
  return hash('sha256', `${lengths}:${words.join('')}`, 'base64url').slice(0, LENGTH);
}
