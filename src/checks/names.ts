import { z } from 'zod';

import { matchesWildcard, parseWildcard, type Wildcard } from './wildcard.ts';

/** RFC 1035 §2.3.4: names below which others stand are no longer; of what is longer, only the end is taken apart at its dots. */
const NAME_LIMIT = 255;

/**
 * Values of host names or domains: `mail.example.org` is that name, `*.example.org` all names below example.org, and other patterns may have `*`
 * anywhere. Names and `*.` patterns cost the same however many there are; other patterns are tried one by one.
 */
export class NameTable<V> {
  readonly #exact = new Map<string, V>();
  /** Patterns `*.example.org`, without their first two characters. */
  readonly #below = new Map<string, V>();
  readonly #patterns = new Map<string, { readonly wildcard: Wildcard; readonly value: V }>();

  get(pattern: string): V | undefined {
    const { map, key } = this.#place(pattern);
    return map === null ? this.#patterns.get(key)?.value : map.get(key);
  }

  set(pattern: string, value: V): void {
    const { map, key } = this.#place(pattern);
    if (map === null) this.#patterns.set(key, { wildcard: parseWildcard(key), value });
    else map.set(key, value);
  }

  /** How many patterns are tried one by one. */
  get slow(): number {
    return this.#patterns.size;
  }

  get size(): number {
    return this.#exact.size + this.#below.size + this.#patterns.size;
  }

  /** Values of all patterns that match `name`, which is in lower case and without a closing dot. */
  *matches(name: string): Generator<V, void> {
    const exact = this.#exact.get(name);
    if (exact !== undefined) yield exact;
    if (this.#below.size > 0) {
      const from = Math.max(1, name.length - NAME_LIMIT - 1);
      for (let dot = name.indexOf('.', from); dot !== -1; dot = name.indexOf('.', dot + 1)) {
        const value = this.#below.get(name.slice(dot + 1));
        if (value !== undefined) yield value;
      }
    }
    for (const { wildcard, value } of this.#patterns.values()) {
      if (matchesWildcard(wildcard, name)) yield value;
    }
  }

  has(name: string): boolean {
    return this.matches(name).next().done !== true;
  }

  #place(pattern: string): { readonly map: Map<string, V> | null; readonly key: string } {
    const key = pattern.toLowerCase();
    if (!key.includes('*')) return { map: this.#exact, key };
    if (key.startsWith('*.') && key.length > 2 && !key.includes('*', 1))
      return { map: this.#below, key: key.slice(2) };
    return { map: null, key };
  }
}

/** As NameTable, for mailboxes: `user@example.org`, `@example.org`, `@*.example.org`, and other patterns with `*` anywhere. */
export class MailboxTable<V> {
  readonly #domains = new NameTable<V>();
  readonly #mailboxes = new NameTable<V>();

  get(pattern: string): V | undefined {
    return pattern.startsWith('@') ? this.#domains.get(pattern.slice(1)) : this.#mailboxes.get(pattern);
  }

  set(pattern: string, value: V): void {
    if (pattern.startsWith('@')) this.#domains.set(pattern.slice(1), value);
    else this.#mailboxes.set(pattern, value);
  }

  get slow(): number {
    return this.#domains.slow + this.#mailboxes.slow;
  }

  get size(): number {
    return this.#domains.size + this.#mailboxes.size;
  }

  /** `mailbox` in lower case. */
  *matches(mailbox: string): Generator<V, void> {
    yield* this.#mailboxes.matches(mailbox);
    const at = mailbox.lastIndexOf('@');
    if (at !== -1) yield* this.#domains.matches(mailbox.slice(at + 1));
  }

  has(mailbox: string): boolean {
    return this.matches(mailbox).next().done !== true;
  }
}

/** Patterns in one list of the configuration. */
export const NAME_LIST_LIMIT = 10_000;

/** A list of host names or domains, and patterns of them. */
export function nameList(form: string): z.ZodType<NameTable<true>, string[]> {
  return z
    .array(z.string(form).regex(/^[\w.*-]{1,255}$/, form), `expected a list: ${form}`)
    .max(NAME_LIST_LIMIT)
    .transform((list) => {
      const table = new NameTable<true>();
      for (const pattern of list) table.set(pattern, true);
      return table;
    })
    .meta({ title: 'list of names' });
}
