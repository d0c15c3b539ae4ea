import { authResultsField, claimsAuthservId, type AuthResult } from '../mail/auth-results.ts';
import { foldedValue, remoteValue, wrapLines } from '../mail/fold.ts';
import { HeaderList, unfold, type HeaderField } from '../mail/header.ts';
import type { Rewriting, SpamScan } from '../mail/spam-scan.ts';
import type { Outcome } from './finding.ts';
import type { Rules } from './rules.ts';
import { isSpamField, spamFields } from './spam-fields.ts';
import { isWrapped, wrapperFields } from './spam-wrapper.ts';
import { PREVIOUS_SUBJECT, tagSubject } from './subject-tag.ts';
import type { Verdict } from './verdict.ts';

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

/**
 * The header section as an MTA leaves it after the edits. A field that is not there is not deleted, and is appended when it is to be
 * replaced, as Postfix does with SMFIR_CHGHEADER.
 */
export function applyEdits(headers: HeaderList, edits: readonly Edit[]): HeaderList {
  if (edits.length === 0) return headers;
  const above: Slot[] = [];
  const below: Slot[] = [];
  const named = new Map<string, Slot[]>();
  const slotsOf = (name: string): Slot[] => {
    const key = name.toLowerCase();
    const known = named.get(key);
    if (known !== undefined) return known;
    const slots: Slot[] = [];
    named.set(key, slots);
    return slots;
  };
  for (const field of headers) {
    const slot: Slot = { field };
    below.push(slot);
    slotsOf(field.name).push(slot);
  }
  for (const edit of edits) {
    const slots = slotsOf(edit.name);
    const index = edit.kind === 'insert' ? 0 : Math.max(0, edit.occurrence - 1);
    switch (edit.kind) {
      case 'insert': {
        const slot: Slot = { field: { name: edit.name, value: edit.value } };
        above.push(slot);
        slots.unshift(slot);
        break;
      }
      case 'delete': {
        const [slot] = slots.splice(index, 1);
        if (slot !== undefined) slot.field = null;
        break;
      }
      case 'replace': {
        const slot = slots[index];
        if (slot?.field) {
          slot.field = { name: slot.field.name, value: edit.value };
        } else {
          const added: Slot = { field: { name: edit.name, value: edit.value } };
          below.push(added);
          slots.push(added);
        }
        break;
      }
    }
  }
  const fields: HeaderField[] = [];
  for (const { field } of above.toReversed()) if (field !== null) fields.push(field);
  for (const { field } of below) if (field !== null) fields.push(field);
  return new HeaderList(fields);
}

/** Place of a field; null when it was deleted. */
interface Slot {
  field: HeaderField | null;
}

export interface MessageEditsInput {
  readonly headers: HeaderList;
  readonly outcomes: readonly Outcome[];
  readonly verdict: Verdict;
  readonly rules: Rules;
  readonly authservId: string;
  /** Other names under which the site writes Authentication-Results. */
  readonly otherAuthservIds: readonly string[];
  readonly hostname: string;
  readonly trace: string;
  readonly daemon: 'milter' | 'lmtp-filter';
  /** What takes the place of the message (`wrapperFor`); null or left out: nothing. */
  readonly wrapper?: Rewriting | null;
}

const AUTH_RESULTS = 'authentication-results';
const TRACE = 'X-Postern-Trace';
const VERDICT = 'X-Postern-Verdict';
/** Traces of earlier passes through a site with Postern, the latest first. */
export const TRACES_BEFORE = 'X-Postern-Before';
/** Passes that are remembered. */
const BEFORE_LIMIT = 8;

/**
 * Whether our milter wrote its fields into this message: the trace stands above the topmost Received field.
 *
 * The MTA's own Received is the boundary (RFC 8601 §4.1): what the milter inserts stands above it, and nothing a client sends can.
 * The trace alone would not do, because refusals tell it to clients. Means nothing in the milter, which is not shown that field.
 */
export function judgedByMilter(headers: HeaderList, trace: string): boolean {
  const boundary = receivedPosition(headers);
  return headers.toArray().some((field, position) => position < boundary && isTrace(field, trace));
}

/** Every change to the header section that a verdict asks for. Made twice, it changes nothing the second time. */
export function messageEdits(input: MessageEditsInput): readonly Edit[] {
  const { headers, verdict, rules, wrapper = null } = input;
  const judged = input.daemon === 'lmtp-filter' && judgedByMilter(headers, input.trace);
  const boundary = judged ? receivedPosition(headers) : 0;
  const found = sort(headers);
  const deletes: Placed[] = [];
  const inserts: HeaderField[] = [];
  const replaces: Edit[] = [];

  // RFC 8601 §5: what bears one of our names and is not ours goes.
  const ours = [input.authservId, ...input.otherAuthservIds];
  for (const placed of found.authResults) {
    const { value } = placed.field;
    if (placed.position >= boundary && claimsAuthservId(value, ours)) deletes.push(placed);
  }
  const results = judged ? [] : authResults(input.outcomes);
  if (results.length > 0) {
    const { name, value } = authResultsField(input.authservId, results);
    inserts.push({ name, value: wrapLines(name, foldedValue(value)) });
  }

  const renew = (existing: readonly Placed[], wanted: readonly HeaderField[]): void => {
    // A report takes the place of all fields there were.
    if (judged && wrapper === null && sameFields(existing, wanted)) return;
    deletes.push(...existing);
    inserts.push(...wanted);
  };
  renew(found.spam, spamFields(scanOf(input.outcomes), verdict, rules, input.hostname));

  const [previous] = found.previous;
  const subject = tagSubject({
    subjects: found.subjects.map(({ field }) => field.value),
    previous: previous?.field.value ?? null,
    trusted: judged && previous !== undefined && previous.position < boundary,
    handled: judged,
    tag: verdict.tagged ? rules.subjectTag : '',
  });
  renew(
    found.previous,
    // The attached original has its subject.
    subject.previous === null || wrapper !== null
      ? []
      : [{ name: PREVIOUS_SUBJECT, value: subject.previous }],
  );

  renew(found.postern, posternFields(input, found.postern));

  const [firstSubject] = found.subjects;
  if (firstSubject !== undefined && subject.subjects.length < found.subjects.length) {
    deletes.push(firstSubject);
  } else {
    subject.subjects.forEach((value, index) => {
      const placed = found.subjects[index];
      if (placed === undefined) inserts.push({ name: 'Subject', value });
      else if (placed.field.value !== value)
        replaces.push({
          kind: 'replace',
          name: placed.field.name,
          occurrence: placed.occurrence,
          value: foldedValue(value),
        });
    });
  }

  if (wrapper !== null) {
    deletes.push(...wrappedFields(headers, deletes, boundary));
    inserts.push(...wrapperFields(wrapper));
  }

  return [
    // From the bottom up: some MTAs count on at once after a deletion, some don't, and so both delete the same.
    ...deletes
      .toSorted((a, b) => b.position - a.position)
      .map(({ field, occurrence }): Edit => ({ kind: 'delete', name: field.name, occurrence })),
    ...replaces,
    ...inserts.toReversed().map(({ name, value }) => insert({ name, value: foldedValue(value) })),
  ];
}

function receivedPosition(headers: HeaderList): number {
  return headers.toArray().findIndex(({ name }) => name.toLowerCase() === 'received');
}

function isTrace(field: HeaderField, trace: string): boolean {
  return trace !== '' && field.name.toLowerCase() === TRACE.toLowerCase() && unfold(field.value) === trace;
}

/** A field and where it stands. */
interface Placed {
  readonly field: HeaderField;
  readonly position: number;
  readonly occurrence: number;
}

interface Sorted {
  readonly authResults: Placed[];
  readonly spam: Placed[];
  readonly previous: Placed[];
  readonly postern: Placed[];
  readonly subjects: Placed[];
}

/** The fields that edits are about, in one pass. */
function sort(headers: HeaderList): Sorted {
  const sorted: Sorted = { authResults: [], spam: [], previous: [], postern: [], subjects: [] };
  const counts = new Map<string, number>();
  headers.toArray().forEach((field, position) => {
    const name = field.name.toLowerCase();
    const group = groupOf(name, sorted);
    if (group === null) return;
    const occurrence = (counts.get(name) ?? 0) + 1;
    counts.set(name, occurrence);
    group.push({ field, position, occurrence });
  });
  return sorted;
}

/** Fields that the attached original has and the report above it has not, besides those that are deleted anyway. */
function wrappedFields(headers: HeaderList, deleted: readonly Placed[], boundary: number): Placed[] {
  const gone = new Set(deleted.map(({ position }) => position));
  const counts = new Map<string, number>();
  const wrapped: Placed[] = [];
  headers.toArray().forEach((field, position) => {
    const name = field.name.toLowerCase();
    const occurrence = (counts.get(name) ?? 0) + 1;
    counts.set(name, occurrence);
    // What our milter found out about the original stays in sight.
    if (name === AUTH_RESULTS && position < boundary) return;
    if (isWrapped(name) && !gone.has(position)) wrapped.push({ field, position, occurrence });
  });
  return wrapped;
}

function groupOf(name: string, sorted: Sorted): Placed[] | null {
  if (name === AUTH_RESULTS) return sorted.authResults;
  if (name === 'subject') return sorted.subjects;
  if (name === PREVIOUS_SUBJECT.toLowerCase()) return sorted.previous;
  if (isSpamField(name)) return sorted.spam;
  return name.startsWith('x-postern-') ? sorted.postern : null;
}

/** All that the checks have to say in Authentication-Results, in their order. */
export function authResults(outcomes: readonly Outcome[]): readonly AuthResult[] {
  return outcomes.flatMap((outcome) =>
    outcome.kind === 'found'
      ? outcome.findings.flatMap(({ auth }) => (auth === undefined ? [] : [auth]))
      : [],
  );
}

function scanOf(outcomes: readonly Outcome[]): SpamScan | null {
  for (const outcome of outcomes) {
    if (outcome.kind !== 'found') continue;
    for (const { scan } of outcome.findings) if (scan !== undefined) return scan;
  }
  return null;
}

function posternFields(
  { headers, verdict, rules, trace, daemon }: MessageEditsInput,
  existing: readonly Placed[],
): HeaderField[] {
  const fields = [{ name: TRACE, value: remoteValue(TRACE, ` ${trace}`) }];
  // What the milter quarantines is held by the MTA; what lmtp-filter quarantines has to be known again by whoever receives it.
  if (verdict.kind === 'junk' || (verdict.kind === 'quarantine' && daemon === 'lmtp-filter')) {
    const value = ` ${verdict.kind}; reason=${verdict.rule}`;
    fields.push({ name: VERDICT, value: remoteValue(VERDICT, value) });
  } else if (verdict.kind === 'accept' && verdict.tagged && rules.thresholds.junk !== null) {
    // Sieve would take the flag alone for junk: there is a band of its own for that, which the score does not reach.
    fields.push({ name: VERDICT, value: remoteValue(VERDICT, ` tag; reason=${verdict.rule}`) });
  }
  const before = tracesBefore(headers, trace, existing);
  if (before.length > 0) fields.push({ name: TRACES_BEFORE, value: ` ${before.join(' ')}` });
  return fields;
}

/**
 * For lmtp-filter, which finds circles by them. Only mail that was delivered before can go in one, and Delivered-To says so; on other
 * mail they would be nothing but somebody's words.
 */
function tracesBefore(headers: HeaderList, trace: string, existing: readonly Placed[]): string[] {
  if (headers.first('Delivered-To') === undefined) return [];
  const traces = existing.flatMap(({ field }) => {
    const name = field.name.toLowerCase();
    if (name !== TRACE.toLowerCase() && name !== TRACES_BEFORE.toLowerCase()) return [];
    return unfold(field.value).match(/\b[a-z2-7]{16}\b/g) ?? [];
  });
  return [...new Set(traces)].filter((known) => known !== trace).slice(0, BEFORE_LIMIT);
}

function sameFields(existing: readonly Placed[], wanted: readonly HeaderField[]): boolean {
  return (
    existing.length === wanted.length &&
    wanted.every(({ name, value }, index) => {
      const field = existing[index]?.field;
      return field?.name.toLowerCase() === name.toLowerCase() && unfold(field.value) === unfold(value);
    })
  );
}
