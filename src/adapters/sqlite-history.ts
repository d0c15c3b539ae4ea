import type { DatabaseSync, SQLInputValue } from 'node:sqlite';

import { z } from 'zod';

import type { Decision, HistoryFilter } from '../ports/store.ts';
import { addressKey, DECISION_COLUMNS } from './sqlite-decisions.ts';
import { withLabels } from './sqlite-labels.ts';
import { json, outcomeList } from './sqlite-outcomes.ts';
import { PART_BITS } from './sqlite-schema.ts';

const verdictKind = z.enum(['accept', 'junk', 'quarantine', 'defer', 'reject', 'discard']);

const shadow = z.object({ rule: z.string(), kind: verdictKind });

const decisionRow = z
  .object({
    trace: z.string(),
    time: z.number(),
    daemon: z.enum(['policyd', 'milter', 'lmtp-filter']),
    stage: z.string(),
    direction: z.enum(['in', 'out']),
    queue_id: z.string().nullable(),
    client: z.string(),
    helo: z.string().nullable(),
    login: z.string().nullable(),
    sender: z.string(),
    recipients: json(z.array(z.string())),
    message_id: z.string().nullable(),
    size: z.number().nullable(),
    verdict: verdictKind,
    rule: z.string(),
    why: z.string(),
    score: z.number().nullable(),
    tagged: z.literal([0, 1]).transform((bit) => bit === 1),
    reply: z.string(),
    shadow: json(z.array(shadow)),
    outcomes: json(outcomeList),
    elapsed: z.number(),
  })
  .transform(({ queue_id: queueId, message_id: messageId, ...same }): Decision => ({
    ...same,
    queueId,
    messageId,
  }));

/** As the index `decision_backscatter` says it: SQLite uses it when the words are the same. */
const BACKSCATTER = "d.daemon = 'lmtp-filter' AND (d.reply GLOB '5*' OR d.reply GLOB '452[- ]4.2.2*')";

/** Decisions that are written late stand among newer ones; so many rows of a part may. */
const PART_ROWS = 2 ** PART_BITS;

/** One SQL condition with its values. */
type Condition = readonly [text: string, ...values: SQLInputValue[]];

/** An index that is looked into part by part, and what is looked for in it. */
interface Lookup {
  readonly index: string;
  readonly wanted: Condition;
}

/** The statement that answers a filter, newest first. Exported for the test that asks SQLite how it goes about it. */
export function historyQuery(filter: HistoryFilter): { sql: string; values: SQLInputValue[] } {
  const rest = plainConditions(filter);
  const lookup = lookupOf(filter);
  const ids =
    lookup === null
      ? select(`decision AS d`, rest, 'ORDER BY d.time DESC, d.id DESC LIMIT ?', [filter.limit])
      : found(lookup, rest, filter);
  return {
    // Chosen by small columns first: sorting whole rows would read the facts of every decision that fits.
    sql: `SELECT ${DECISION_COLUMNS} FROM decision
      WHERE id IN (SELECT id FROM (${ids.sql}) ORDER BY time DESC, id DESC LIMIT ?)
      ORDER BY time DESC, id DESC`,
    values: [...ids.values, filter.limit],
  };
}

/** Newest first. */
export function selectHistory(database: DatabaseSync, filter: HistoryFilter): Decision[] {
  const { sql, values } = historyQuery(filter);
  const rows = database.prepare(sql).all(...values);
  return withLabels(
    database,
    rows.map((row) => decisionRow.parse(row)),
  );
}

const RECIPIENT_INDEX = 'decision_recipient_key';

interface Query {
  readonly sql: string;
  readonly values: readonly SQLInputValue[];
}

/** Goes from the newest part down. As many rows more than asked for as one part has: then none of the newer parts is cut. */
function found(lookup: Lookup, rest: readonly Condition[], filter: HistoryFilter): Query {
  const parts = `WITH RECURSIVE part(n) AS (
      SELECT max(id) >> ${PART_BITS} FROM decision
      UNION ALL SELECT n - 1 FROM part WHERE n > (SELECT min(id) >> ${PART_BITS} FROM decision))`;
  const end = 'LIMIT ?';
  const most = [filter.limit + PART_ROWS];
  const inPart: Condition = [`d.id >> ${PART_BITS} = part.n`];
  const own = select(
    `part CROSS JOIN decision AS d INDEXED BY ${lookup.index}`,
    [inPart, lookup.wanted, ...rest],
    end,
    most,
  );
  if (filter.recipient === undefined || lookup.index !== RECIPIENT_INDEX)
    return { sql: `${parts} ${own.sql}`, values: own.values };
  const crowd = select(
    'part CROSS JOIN decision_recipient AS r CROSS JOIN decision AS d',
    [
      ['r.part = part.n'],
      addressCondition('r.recipient_key', filter.recipient),
      ['d.id = r.decision'],
      ...rest,
    ],
    end,
    most,
  );
  return {
    sql: `${parts} SELECT id, time FROM (${own.sql}) UNION SELECT id, time FROM (${crowd.sql})`,
    values: [...own.values, ...crowd.values],
  };
}

function select(
  from: string,
  conditions: readonly Condition[],
  end: string,
  endValues: readonly SQLInputValue[],
): Query {
  const where = conditions.length === 0 ? '' : `WHERE ${conditions.map(([text]) => text).join(' AND ')}`;
  return {
    sql: `SELECT d.id, d.time FROM ${from} ${where} ${end}`,
    values: [...conditions.flatMap(([, ...values]) => values), ...endValues],
  };
}

/** What names few decisions, the fewest first. What else the filter says stays a condition on those. */
function lookupOf(filter: HistoryFilter): Lookup | null {
  const { trace, queueId, recipient, sender, client } = filter;
  if (trace !== undefined) return { index: 'decision_trace', wanted: ['d.trace = ?', trace] };
  if (queueId !== undefined) return { index: 'decision_queue_id', wanted: ['d.queue_id = ?', queueId] };
  if (recipient !== undefined)
    return { index: RECIPIENT_INDEX, wanted: addressCondition('d.recipient_key', recipient) };
  if (sender !== undefined)
    return { index: 'decision_sender', wanted: addressCondition('d.sender_key', sender) };
  if (client !== undefined) return { index: 'decision_client', wanted: ['d.client = ?', client] };
  return null;
}

/** Conditions besides that of the lookup; those that it covers hold for its rows anyway. */
function plainConditions(filter: HistoryFilter): Condition[] {
  const { trace, queueId, recipient, sender, client, daemon, verdict, since, until, rule } = filter;
  const conditions: Condition[] = [];
  const narrower = trace !== undefined || queueId !== undefined;
  if (trace !== undefined && queueId !== undefined) conditions.push(['d.queue_id = ?', queueId]);
  if (recipient !== undefined && narrower) conditions.push(recipientCondition(recipient));
  if (sender !== undefined && (narrower || recipient !== undefined))
    conditions.push(addressCondition('d.sender_key', sender));
  if (client !== undefined && (narrower || recipient !== undefined || sender !== undefined))
    conditions.push(['d.client = ?', client]);
  if (daemon !== undefined) conditions.push(['d.daemon = ?', daemon]);
  // Mail that nothing speaks against is most of all there is, and not in these indexes: the newest of it are found by time.
  if (verdict !== undefined) conditions.push(['d.verdict = ?', verdict]);
  if (verdict !== undefined && verdict !== 'accept') conditions.push(["d.verdict <> 'accept'"]);
  if (rule !== undefined) conditions.push(...ruleConditions(rule));
  if (filter.backscatter === true) conditions.push([BACKSCATTER]);
  if (since !== undefined) conditions.push(['d.time >= ?', since]);
  if (until !== undefined) conditions.push(['d.time < ?', until]);
  return conditions;
}

const NO_RULE = 'default';

function ruleConditions(rule: string): Condition[] {
  const prefix = rule.endsWith('*') ? rule.slice(0, -1) : null;
  const wanted: Condition = prefix === null ? ['d.rule = ?', rule] : prefixRange('d.rule', prefix);
  const common = prefix === null ? rule === NO_RULE : NO_RULE.startsWith(prefix);
  return common ? [wanted] : [wanted, [`d.rule <> '${NO_RULE}'`]];
}

function addressCondition(column: string, wanted: string): Condition {
  if (wanted.startsWith('@')) return prefixRange(column, `${wanted.slice(1).toLowerCase()}@`);
  return [`${column} = ?`, addressKey(wanted)];
}

/** For the few rows of a trace or a queue id. */
function recipientCondition(wanted: string): Condition {
  const [own, ...values] = addressCondition('d.recipient_key', wanted);
  const [crowd] = addressCondition('r.recipient_key', wanted);
  return [
    `(${own} OR EXISTS (SELECT 1 FROM decision_recipient AS r
      WHERE r.part = d.id >> ${PART_BITS} AND ${crowd} AND r.decision = d.id))`,
    ...values,
    ...values,
  ];
}

/** All texts that start with `prefix`; unlike LIKE and GLOB it has no special characters and uses the index. */
function prefixRange(column: string, prefix: string): Condition {
  return [`${column} >= ? AND ${column} < ?`, prefix, `${prefix}\u{10ffff}`];
}
