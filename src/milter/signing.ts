import type { Signing, SigningKey } from '../config/config.ts';
import { authorDomain } from '../mail/author.ts';
import type { HeaderList } from '../mail/header.ts';

/**
 * The keys that sign this message: those of the domain that it is from, or of its nearest parent domain whose keys are for subdomains
 * too. None when the author's domain can't be told, or has no key.
 */
export function selectKeys(signing: Signing, headers: HeaderList): readonly SigningKey[] {
  if (signing.keys.length === 0) return [];
  const author = authorDomain(headers);
  if (author === null) return [];
  const fitting = signing.keys.filter((key) => signsFor(key, author));
  const longest = Math.max(...fitting.map((key) => key.domain.length));
  return fitting.filter((key) => key.domain.length === longest);
}

function signsFor(key: SigningKey, author: string): boolean {
  return key.domain === author || (key.subdomains && author.endsWith(`.${key.domain}`));
}
