import { z } from 'zod';

import type { Decision } from '../ports/store.ts';
import { outcomeList } from './sqlite-outcomes.ts';

/** A decision as text: JSON without names, which are half of it. What is `null` at the end of a list is left out. */

const word = z.string();
const maybe = z.string().nullable();
const verdictKind = z.enum(['accept', 'junk', 'quarantine', 'defer', 'reject', 'discard']);

type Outcome = Decision['outcomes'][number];
type Finding = Extract<Outcome, { kind: 'found' }>['findings'][number];

/** As `decisionText` writes it. The time comes first: scripts read it there. */
const written = z.tuple([
  z.number(),
  z.number(),
  word,
  word,
  z.enum(['policyd', 'milter', 'lmtp-filter']),
  word,
  z.enum(['in', 'out']),
  maybe,
  word,
  maybe,
  maybe,
  word,
  z.array(z.string()),
  maybe,
  z.number().nullable(),
  verdictKind,
  word,
  word,
  z.number().nullable(),
  z.literal([0, 1]),
  word,
  z.array(z.tuple([z.string(), verdictKind])),
  z.array(z.unknown()),
  z.number(),
]);

/** A decision that was read, and where it stands among those of the same millisecond. */
export interface ReadDecision {
  readonly decision: Decision;
  readonly serial: number;
}

/** @param host whose decision it is; empty: not said. @param serial counts what one process records */
export function decisionText(decision: Decision, host: string, serial: number): string {
  return JSON.stringify([
    decision.time,
    serial,
    host,
    decision.trace,
    decision.daemon,
    decision.stage,
    decision.direction,
    decision.queueId,
    decision.client,
    decision.helo,
    decision.login,
    decision.sender,
    decision.recipients,
    decision.messageId,
    decision.size,
    decision.verdict,
    decision.rule,
    decision.why,
    decision.score,
    decision.tagged ? 1 : 0,
    decision.reply,
    decision.shadow.map(({ rule, kind }) => [rule, kind]),
    packedOutcomes(decision.outcomes, false),
    decision.elapsed,
  ]);
}

/** null: it is no JSON. */
export function jsonIn(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** null: it is no decision. */
export function readDecision(text: string): ReadDecision | null {
  const read = written.safeParse(jsonIn(text));
  if (!read.success) return null;
  const [time, serial, host, trace, daemon, stage, direction, queueId, client, helo, login, ...rest] =
    read.data;
  const [sender, recipients, messageId, size, verdict, rule, why, score, tagged, reply, shadow, ...end] =
    rest;
  const [packs, elapsed] = end;
  const outcomes = unpackedOutcomes(packs);
  if (outcomes === null) return null;
  const decision: Decision = {
    trace,
    time,
    daemon,
    stage,
    direction,
    queueId,
    client,
    helo,
    login,
    sender,
    recipients,
    messageId,
    size,
    verdict,
    rule,
    why,
    score,
    tagged: tagged === 1,
    reply,
    shadow: shadow.map(([name, kind]) => ({ rule: name, kind })),
    outcomes,
    elapsed,
    ...(host === '' ? {} : { host }),
  };
  return { decision, serial };
}

/** @param fields whether with the scanner's header fields: its report quotes the body, and the record keeps no bodies */
export function packedOutcomes(outcomes: readonly Outcome[], fields: boolean): readonly unknown[] {
  return outcomes.map((outcome) => packed(outcome, fields));
}

/** null: they are none. */
export function unpackedOutcomes(packs: unknown): readonly Outcome[] | null {
  if (!Array.isArray(packs)) return null;
  const outcomes = outcomeList.safeParse(packs.map(unpacked));
  return outcomes.success ? outcomes.data : null;
}

function packed(outcome: Outcome, fields: boolean): readonly unknown[] {
  switch (outcome.kind) {
    case 'found':
      return [
        outcome.check,
        outcome.elapsed,
        outcome.findings.map((finding) => packedFinding(finding, fields)),
      ];
    case 'unavailable':
      return [outcome.check, outcome.elapsed, outcome.reason, outcome.detail];
  }
}

function packedFinding(finding: Finding, fields: boolean): readonly unknown[] {
  const { code, detail, score, recipient, auth, explanation, scan, settings, setting, waives } = finding;
  const values = [
    code,
    detail,
    score ?? null,
    recipient ?? null,
    auth === undefined ? null : [auth.method, auth.result, auth.properties, auth.comment ?? null],
    explanation === undefined ? null : [explanation.by, explanation.text],
    scan === undefined
      ? null
      : [
          scan.score,
          scan.required,
          scan.rules,
          fields ? scan.fields.map(({ name, value }) => [name, value]) : [],
          scan.user ?? null,
          scan.rewritten ?? null,
        ],
    settings === undefined && setting === undefined && waives === undefined
      ? null
      : [settings ?? null, setting ?? null, waives ?? null],
  ];
  return values.slice(0, values.findLastIndex((value) => value !== null) + 1);
}

/** What `packed` made, as far as it can be told; the schema of outcomes judges it. */
function unpacked(pack: unknown): unknown {
  const [check, elapsed, third, detail] = list(pack);
  if (typeof third === 'string') return { kind: 'unavailable', check, elapsed, reason: third, detail };
  return { kind: 'found', check, elapsed, findings: list(third).map(unpackedFinding) };
}

function unpackedFinding(pack: unknown): unknown {
  const [
    code,
    detail,
    score = null,
    recipient = null,
    auth = null,
    explanation = null,
    scan = null,
    own = null,
  ] = list(pack);
  const [settings = null, setting = null, waives = null] = list(own);
  return {
    code,
    detail,
    ...(score === null ? {} : { score }),
    ...(recipient === null ? {} : { recipient }),
    ...(auth === null ? {} : { auth: unpackedAuth(list(auth)) }),
    ...(explanation === null
      ? {}
      : { explanation: { by: list(explanation)[0], text: list(explanation)[1] } }),
    ...(scan === null ? {} : { scan: unpackedScan(list(scan)) }),
    ...(settings === null ? {} : { settings }),
    ...(setting === null ? {} : { setting }),
    ...(waives === null ? {} : { waives }),
  };
}

function unpackedAuth([method, result, properties, comment = null]: readonly unknown[]): unknown {
  return { method, result, properties, ...(comment === null ? {} : { comment }) };
}

function unpackedScan([
  score,
  required,
  rules,
  fields,
  user = null,
  rewritten = null,
]: readonly unknown[]): unknown {
  const named = list(fields).map((field) => ({ name: list(field)[0], value: list(field)[1] }));
  return {
    score,
    required,
    rules,
    fields: named,
    ...(user === null ? {} : { user }),
    ...(rewritten === null ? {} : { rewritten }),
  };
}

function list(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}
