import type { HeaderField, HeaderList } from '../mail/header.ts';

/**
 * One change to the header section. Applied in order, each to the result of the one before.
 *
 * `value` is as in HeaderField: with its leading space, folds as CRLF and white space.
 */
export type Edit =
  /** Above everything else. */
  | { readonly kind: 'insert'; readonly name: string; readonly value: string }
  /** `occurrence` counts fields of that name from 1, top first. */
  | { readonly kind: 'delete'; readonly name: string; readonly occurrence: number }
  | { readonly kind: 'replace'; readonly name: string; readonly occurrence: number; readonly value: string };

export function insert(field: HeaderField): Edit {
  return { kind: 'insert', name: field.name, value: field.value };
}

export declare function applyEdits(headers: HeaderList, edits: readonly Edit[]): HeaderList;
