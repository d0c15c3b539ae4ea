import {
  algorithmOf,
  isDomain,
  isSelector,
  parseSignature,
  type Signature,
  type ToALabels,
} from './dkim-signature.ts';
import type { HeaderField, HeaderList } from './header.ts';
import { parseTagList, withoutBlanks } from './tag-list.ts';

/** RFC 8617 §4.2.1. */
export const INSTANCES_LIMIT = 50;

/** Octets of all ARC fields of a message. Each seal is made over all sets before it. */
export const ARC_OCTETS_LIMIT = 128 * 1024;

/** What one intermediary said of a message. RFC 8617 §4.1, §4.2. */
export interface ArcSet {
  readonly instance: number;
  readonly results: HeaderField;
  readonly message: HeaderField;
  /** What the ARC-Message-Signature says; null: nothing that could be verified, which the newest one never is. */
  readonly signature: Signature | null;
  readonly seal: Seal;
}

/** RFC 8617 §4.1.3. */
export interface Seal {
  readonly field: HeaderField;
  readonly algorithm: 'rsa-sha256' | 'ed25519-sha256';
  /** As A-labels. */
  readonly domain: string;
  readonly selector: string;
  /** b=, in base64. */
  readonly value: string;
}

export type ArcChain =
  | { readonly kind: 'none' }
  | { readonly kind: 'broken'; readonly detail: string }
  /** From instance 1 on; at least one. */
  | { readonly kind: 'chain'; readonly sets: readonly ArcSet[] };

type Part = 'results' | 'message' | 'seal';

const PARTS: ReadonlyMap<string, Part> = new Map([
  ['arc-authentication-results', 'results'],
  ['arc-message-signature', 'message'],
  ['arc-seal', 'seal'],
]);
const NAMES: Readonly<Record<Part, string>> = {
  results: 'ARC-Authentication-Results',
  message: 'ARC-Message-Signature',
  seal: 'ARC-Seal',
};

/** RFC 8617 §3.9, §4.2.1. */
const INSTANCE = /^[0-9]{1,2}$/;

/** RFC 8617 §4.1.1: the instance is what the field begins with; comments may stand around it. */
const RESULTS_INSTANCE =
  /^(?:[ \t\r\n]|\([^()\\]*\))*i[ \t\r\n]*=[ \t\r\n]*([0-9]{1,2})(?:[ \t\r\n]|\([^()\\]*\))*;/;

/** RFC 8617 §4.1.3: what a seal can't do without. */
const SEAL_TAGS = ['a', 'b', 'cv', 'd', 's'];

const TIMESTAMP = /^[0-9]{1,12}$/;

/** The sets of a message, when they make up a chain: all that can be told without keys and the body. RFC 8617 §5.2 steps 1 to 3. */
export function readArcChain(headers: HeaderList, toALabels: ToALabels): ArcChain {
  const parts = new Map<number, Map<Part, HeaderField>>();
  let octets = 0;
  for (const field of headers) {
    const part = PARTS.get(field.name.toLowerCase());
    if (part === undefined) continue;
    octets += field.name.length + field.value.length;
    if (octets > ARC_OCTETS_LIMIT) return broken(`the ARC fields have more than ${ARC_OCTETS_LIMIT} octets`);
    const instance = instanceOf(part, field.value);
    if (instance === null) return broken(`${NAMES[part]} has no instance`);
    const set = parts.get(instance) ?? new Map<Part, HeaderField>();
    if (set.has(part)) return broken(`i=${instance} has ${NAMES[part]} twice`);
    parts.set(instance, set.set(part, field));
  }
  if (parts.size === 0) return { kind: 'none' };
  const sets: ArcSet[] = [];
  for (let instance = 1; instance <= parts.size; instance++) {
    const set = readSet(instance, parts.get(instance) ?? new Map(), instance === parts.size, toALabels);
    if (typeof set === 'string') return broken(`i=${instance} ${set}`);
    sets.push(set);
  }
  return { kind: 'chain', sets };
}

function broken(detail: string): ArcChain {
  return { kind: 'broken', detail };
}

/** Instance of an ARC field; null: it is none, or its instance can't be read. */
export function arcInstance({ name, value }: HeaderField): number | null {
  const part = PARTS.get(name.toLowerCase());
  return part === undefined ? null : instanceOf(part, value);
}

function instanceOf(part: Part, value: string): number | null {
  const text =
    part === 'results'
      ? (RESULTS_INSTANCE.exec(value)?.[1] ?? '')
      : (parseTagList(value).tags.get('i') ?? '');
  const instance = INSTANCE.test(text) ? Number(text) : 0;
  return instance >= 1 && instance <= INSTANCES_LIMIT ? instance : null;
}

/** A set of which all is there; in words what is wrong with it else. */
function readSet(
  instance: number,
  parts: ReadonlyMap<Part, HeaderField>,
  newest: boolean,
  toALabels: ToALabels,
): ArcSet | string {
  const results = parts.get('results');
  const message = parts.get('message');
  const field = parts.get('seal');
  if (results === undefined) return `has no ${NAMES.results}`;
  if (message === undefined) return `has no ${NAMES.message}`;
  if (field === undefined) return `has no ${NAMES.seal}`;
  const seal = readSeal(field, instance, toALabels);
  if (typeof seal === 'string') return `${NAMES.seal}: ${seal}`;
  const read = parseSignature(message.value, 'arc', toALabels);
  if (read.kind === 'fault') {
    // An older one is no more than data that was sealed.
    return newest
      ? `${NAMES.message}: ${read.detail}`
      : { instance, results, message, signature: null, seal };
  }
  const { signature } = read;
  // §4.1.2: made before the seal, it can't have signed it.
  if (signature.names.includes('arc-seal')) return `${NAMES.message}: signs ${NAMES.seal}`;
  return { instance, results, message, signature, seal };
}

function readSeal(field: HeaderField, instance: number, toALabels: ToALabels): Seal | string {
  const { tags, valid } = parseTagList(field.value);
  if (!valid) return 'syntax error';
  const missing = SEAL_TAGS.find((tag) => !tags.has(tag));
  if (missing !== undefined) return `has no ${missing}=`;
  // §4.1.3: what a seal covers is not its sealer's choice.
  if (tags.has('h')) return 'has h=';
  const time = tags.get('t');
  if (time !== undefined && !TIMESTAMP.test(time)) return 'syntax error';
  // §5.2 steps 2 and 3: the first one can't have had a chain before it, each later one had a valid one.
  const status = tags.get('cv') ?? '';
  if (status.toLowerCase() !== (instance === 1 ? 'none' : 'pass')) return `says cv=${status}`;
  const algorithm = algorithmOf(tags.get('a') ?? '', 'arc');
  if (algorithm === null || algorithm === 'rsa-sha1') return 'unknown algorithm';
  const domain = toALabels(tags.get('d') ?? '');
  const selector = toALabels(tags.get('s') ?? '');
  if (!isDomain(domain) || !isSelector(selector)) return 'syntax error';
  return { field, algorithm, domain, selector, value: withoutBlanks(tags.get('b') ?? '') };
}
