import type { DaemonName, HistoryFilter } from '../ports/store.ts';
import { VERDICT_KINDS, type VerdictKind } from '../verdict/verdict.ts';
import { DAEMONS, readArguments, UsageError } from './arguments.ts';

export interface HistoryArguments {
  readonly config: string | null;
  readonly filter: HistoryFilter;
  /** One JSON value per line in place of text. */
  readonly json: boolean;
  readonly facts: boolean;
  /** The way of one message: all its decisions, the first one first. */
  readonly journey: boolean;
}

const TEXT = { type: 'string', multiple: true } as const;
const FLAG = { type: 'boolean' } as const;
const OPTIONS = {
  config: TEXT,
  trace: TEXT,
  'queue-id': TEXT,
  from: TEXT,
  to: TEXT,
  client: TEXT,
  daemon: TEXT,
  verdict: TEXT,
  rule: TEXT,
  since: TEXT,
  until: TEXT,
  limit: TEXT,
  backscatter: FLAG,
  json: FLAG,
  facts: FLAG,
} as const;

const USUAL_LIMIT = 50;
/** policyd decides once per recipient. */
const JOURNEY_LIMIT = 2000;
const MAX_LIMIT = 100_000;

const AGO = /^(\d{1,6})(s|m|h|d)$/;
const AGO_MS: Readonly<Record<string, number>> = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };
/** A day, or a time with its offset from UTC: a local time without one would mean something else on each machine. */
const ISO = /^\d{4}-\d{2}-\d{2}(?:T\d{2}:\d{2}(?::\d{2}(?:\.\d{1,9})?)?(?:Z|[+-]\d{2}:\d{2}))?$/;

/** @throws {UsageError} */
export function parseHistory(args: readonly string[], now: number): HistoryArguments {
  const { values, positionals } = readArguments('history', args, OPTIONS);
  const [surplus] = positionals;
  if (surplus !== undefined) throw usage(`"${surplus}" is not expected here`);
  const one = (name: Exclude<keyof typeof OPTIONS, 'json' | 'facts' | 'backscatter'>): string | undefined => {
    const given = values[name] ?? [];
    if (given.length > 1) throw usage(`option --${name} is given twice`);
    return given[0];
  };
  const trace = one('trace');
  const queueId = one('queue-id');
  const sender = mailbox(one('from'));
  const recipient = mailbox(one('to'));
  const client = one('client');
  const daemon = word('daemon', one('daemon'), DAEMONS);
  const verdict = word('verdict', one('verdict'), VERDICT_KINDS);
  const rule = one('rule');
  const since = time('since', one('since'), now);
  const until = time('until', one('until'), now);
  const filter: HistoryFilter = {
    ...(trace === undefined ? {} : { trace }),
    ...(queueId === undefined ? {} : { queueId }),
    ...(sender === undefined ? {} : { sender }),
    ...(recipient === undefined ? {} : { recipient }),
    ...(client === undefined ? {} : { client }),
    ...(daemon === undefined ? {} : { daemon }),
    ...(verdict === undefined ? {} : { verdict }),
    ...(rule === undefined ? {} : { rule }),
    ...(since === undefined ? {} : { since }),
    ...(until === undefined ? {} : { until }),
    ...(values.backscatter === true ? { backscatter: true } : {}),
    limit: limit(one('limit'), trace === undefined ? USUAL_LIMIT : JOURNEY_LIMIT),
  };
  return {
    config: one('config') ?? null,
    filter,
    json: values.json ?? false,
    facts: values.facts ?? false,
    journey: trace !== undefined,
  };
}

/** `<>` is the null path; brackets are taken off. */
function mailbox(text: string | undefined): string | undefined {
  return text === undefined ? undefined : text.replace(/^<(.*)>$/s, '$1');
}

function word<W extends DaemonName | VerdictKind>(
  option: string,
  text: string | undefined,
  words: readonly W[],
): W | undefined {
  if (text === undefined) return undefined;
  const known = words.find((candidate) => candidate === text);
  if (known === undefined) throw usage(`--${option} ${text}: expected one of ${words.join(', ')}`);
  return known;
}

function time(option: string, text: string | undefined, now: number): number | undefined {
  if (text === undefined) return undefined;
  const [, amount, unit] = AGO.exec(text) ?? [];
  if (amount !== undefined && unit !== undefined) return now - Number(amount) * (AGO_MS[unit] ?? 0);
  const at = ISO.test(text) ? Date.parse(text) : Number.NaN;
  if (!Number.isNaN(at)) return at;
  throw usage(
    `--${option} ${text}: expected how long ago, such as "30m", "2h" or "7d", or a time such as "2026-11-21" or "2026-11-21T09:30:00Z"`,
  );
}

function limit(text: string | undefined, usual: number): number {
  if (text === undefined) return usual;
  const wanted = /^\d{1,9}$/.test(text) ? Number(text) : 0;
  if (wanted >= 1 && wanted <= MAX_LIMIT) return wanted;
  throw usage(`--limit ${text}: expected a number from 1 to ${MAX_LIMIT}`);
}

function usage(message: string): UsageError {
  return new UsageError(message, 'history');
}
