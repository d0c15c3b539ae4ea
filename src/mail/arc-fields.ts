import { arcInstance } from './arc-chain.ts';
import { canonicalField } from './dkim-header.ts';
import type { HeaderField, HeaderList } from './header.ts';
import { parseTagList } from './tag-list.ts';

/** The three fields of one ARC set, in the order in which a seal covers them (RFC 8617 §5.1.1). */
const ARC_NAMES = ['ARC-Authentication-Results', 'ARC-Message-Signature', 'ARC-Seal'] as const;
type ArcName = (typeof ARC_NAMES)[number];

const BY_LOWER: ReadonlyMap<string, ArcName> = new Map(ARC_NAMES.map((name) => [name.toLowerCase(), name]));

/** The ARC fields that a message has, as far as one who adds another set needs to know of them. Judges nothing. */
export interface ArcFields {
  /** The highest instance; 0: there is no ARC field, or none whose instance can be read. */
  readonly highest: number;
  /** Whether there is any ARC field. */
  readonly present: boolean;
  /** Whether the seal with the highest instance says cv=fail: nothing is to be added then. */
  readonly ended: boolean;
  readonly sets: ReadonlyMap<number, Partial<Record<ArcName, HeaderField>>>;
}

export function arcFields(headers: HeaderList): ArcFields {
  const sets = new Map<number, Partial<Record<ArcName, HeaderField>>>();
  let present = false;
  let highest = 0;
  for (const field of headers) {
    const name = BY_LOWER.get(field.name.toLowerCase());
    if (name === undefined) continue;
    present = true;
    const instance = arcInstance(field);
    if (instance === null) continue;
    highest = Math.max(highest, instance);
    const set = sets.get(instance) ?? {};
    set[name] ??= field;
    sets.set(instance, set);
  }
  const seal = sets.get(highest)?.['ARC-Seal'];
  const status = seal === undefined ? undefined : parseTagList(seal.value).tags.get('cv');
  return { highest, present, ended: status?.toLowerCase() === 'fail', sets };
}

/** What a seal covers of the sets before its own, in canonical form, each field with its CRLF. RFC 8617 §5.1.1. */
export function sealedSets({ sets, highest }: ArcFields): string {
  let data = '';
  for (let instance = 1; instance <= highest; instance++) {
    for (const name of ARC_NAMES) {
      const field = sets.get(instance)?.[name];
      if (field !== undefined) data += `${canonicalField(field, 'relaxed')}\r\n`;
    }
  }
  return data;
}
