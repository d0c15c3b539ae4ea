import type { HeaderField, HeaderList } from '../mail/header.ts';
import { replyLine } from '../mail/reply.ts';
import type { Edit } from '../verdict/edits.ts';
import type { Verdict } from '../verdict/verdict.ts';
import { BODY_PIECE, encodeResponses, type Response } from './responses.ts';

/** What is answered at the end of a message. */
export interface Rendered {
  readonly bytes: Buffer;
  /** The same in words, for log and record. */
  readonly text: string;
}

/** Recipients that are added. */
export interface Copies {
  readonly addresses: readonly string[];
  /** Whether the MTA takes ESMTP parameters with them. */
  readonly parameters: boolean;
}

const NO_COPIES: Copies = { addresses: [], parameters: false };

/** A field of the message while edits are applied to it. */
interface Slot {
  /** null: deleted. */
  field: HeaderField | null;
}

/** A field that the MTA showed to us. */
interface ShownSlot extends Slot {
  readonly original: HeaderField;
  /** Which one of its name it was, from 1. */
  readonly occurrence: number;
}

/** The verdict in the milter's words, with the edits before it where the message goes on. `body`: the new one, as latin1; null: it stays. */
export function renderVerdict(
  verdict: Verdict,
  trace: string,
  headers: HeaderList,
  edits: readonly Edit[],
  leadingSpace: boolean,
  body: string | null = null,
  copies: Copies = NO_COPIES,
): Rendered {
  const changes = (): Response[] => [
    ...renderCopies(copies),
    ...renderEdits(headers, edits, leadingSpace),
    // Last: what else is said between pieces of a body ends it.
    ...newBody(body),
  ];
  const { addresses } = copies;
  const copied = addresses.length === 0 ? '' : ` (copy to ${addresses.join(', ')})`;
  switch (verdict.kind) {
    case 'accept':
    case 'junk':
      return rendered([...changes(), { kind: 'continue' }], `SMFIR_CONTINUE${copied}`);
    case 'quarantine': {
      // Postfix shows the first 100 octets of the reason.
      const reason = `${verdict.rule} (${trace})`;
      return rendered(
        [...changes(), { kind: 'quarantine', reason }, { kind: 'continue' }],
        `SMFIR_QUARANTINE ${reason}${copied}`,
      );
    }
    case 'defer':
    case 'reject': {
      const line = replyLine(verdict.reply, trace);
      return rendered([{ kind: 'reply', line }], line);
    }
    case 'discard':
      return rendered([{ kind: 'discard' }], 'SMFIR_DISCARD');
  }
}

/** A message that is in our own quarantine: the MTA has no more to do with it. */
export function renderKept(id: string): Rendered {
  return rendered([{ kind: 'discard' }], `SMFIR_DISCARD (quarantined as ${id})`);
}

/** Whoever sent the message must not learn of a copy from a bounce of it. RFC 3461 §4.1. */
function renderCopies({ addresses, parameters }: Copies): Response[] {
  return addresses.map((address) => ({
    kind: 'add-recipient',
    path: `<${address}>`,
    parameters: parameters ? 'NOTIFY=NEVER' : null,
  }));
}

/** All pieces in a row, as Postfix wants them. */
function newBody(body: string | null): Response[] {
  const pieces: Response[] = [];
  if (body === null) return pieces;
  for (let at = 0; at < body.length; at += BODY_PIECE)
    pieces.push({ kind: 'replace-body', piece: body.slice(at, at + BODY_PIECE) });
  return pieces;
}

function rendered(responses: readonly Response[], text: string): Rendered {
  return { bytes: encodeResponses(responses), text };
}

/**
 * Header edits as modifications. Changes to fields that the MTA showed come first and count from below: Postfix closes the gap that a
 * deleted field leaves at once, Sendmail never does, and both understand this order. Then what is new, which shifts nothing any more.
 */
export function renderEdits(headers: HeaderList, edits: readonly Edit[], leadingSpace: boolean): Response[] {
  const { shown, named } = slotsOf(headers, edits);
  const above: Slot[] = [];
  const below: Slot[] = [];
  for (const edit of edits) {
    const slots = named.get(edit.name.toLowerCase()) ?? [];
    switch (edit.kind) {
      case 'insert': {
        const slot = { field: { name: edit.name, value: edit.value } };
        above.push(slot);
        slots.unshift(slot);
        break;
      }
      case 'delete': {
        const [slot] = slots.splice(Math.max(0, edit.occurrence - 1), 1);
        if (slot !== undefined) slot.field = null;
        break;
      }
      case 'replace': {
        const slot = slots[Math.max(0, edit.occurrence - 1)];
        if (slot?.field) {
          slot.field = { name: slot.field.name, value: edit.value };
        } else {
          const appended = { field: { name: edit.name, value: edit.value } };
          below.push(appended);
          slots.push(appended);
        }
        break;
      }
    }
  }
  const responses: Response[] = [];
  for (const { field, original, occurrence } of shown.toReversed()) {
    if (field === original) continue;
    const value = field === null ? DELETED : changedValue(field.value, leadingSpace);
    responses.push({ kind: 'change-header', index: occurrence, name: original.name, value });
  }
  for (const { field } of below) {
    if (field === null) continue;
    responses.push({ kind: 'add-header', name: field.name, value: wireValue(field.value, leadingSpace) });
  }
  for (const { field } of above) {
    if (field === null) continue;
    const value = wireValue(field.value, leadingSpace);
    responses.push({ kind: 'insert-header', index: 0, name: field.name, value });
  }
  return responses;
}

/** The fields with a name that is deleted or replaced, in the order of the message; and lists by name, one for each name of an edit. */
function slotsOf(
  headers: HeaderList,
  edits: readonly Edit[],
): { shown: ShownSlot[]; named: Map<string, Slot[]> } {
  const shown: ShownSlot[] = [];
  const named = new Map<string, Slot[]>();
  let looked = false;
  for (const edit of edits) {
    const key = edit.name.toLowerCase();
    if (!named.has(key)) named.set(key, []);
    looked ||= edit.kind !== 'insert';
  }
  if (!looked) return { shown, named };
  for (const field of headers) {
    const slots = named.get(field.name.toLowerCase());
    if (slots === undefined) continue;
    const slot = { field, original: field, occurrence: slots.length + 1 };
    slots.push(slot);
    shown.push(slot);
  }
  return { shown, named };
}

/** An empty value is how SMFIR_CHGHEADER deletes. */
const DELETED = '';

/** A change to nothing: a lone space keeps it from being read as a deletion. */
function changedValue(value: string, leadingSpace: boolean): string {
  return wireValue(value, leadingSpace) || ' ';
}

/** Without SMFIP_HDR_LEADSPC the MTA puts the one space back. */
function wireValue(value: string, leadingSpace: boolean): string {
  return !leadingSpace && value.startsWith(' ') ? value.slice(1) : value;
}
