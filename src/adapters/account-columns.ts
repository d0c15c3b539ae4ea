import type { Account, AccountThresholds } from '../ports/directory.ts';
import { NeighbourError } from '../ports/neighbour-error.ts';
import type { Row } from './directory-source.ts';
import { sizeOf } from './passwd-file.ts';

/** What the columns of settings are called; those of limits are `limit_` with the name of the limit. */
const LIMIT_PREFIX = 'limit_';
/** Far more than any account has. */
const LIST_LIMIT = 1000;
const THRESHOLD = /^-?\d{1,6}(?:\.\d{1,3})?$/;
const YES = /^(?:1|y|yes|t|true|on)$/i;
const NO = /^(?:0|n|no|f|false|off|none)$/i;
/** RFC 5646 §2.1; systems write "es_MX", too. */
const LANGUAGE = /^[a-z]{2,8}(?:[-_][a-z0-9]{1,8}){0,4}$/i;
/** Characters of a subject tag: as in [[override]]. */
const TAG_LIMIT = 60;

/** The settings of one account as its rows say; null: they say nothing. The first row that has a value counts; lists are joined. @throws {NeighbourError} */
export function accountOf(rows: readonly Row[]): Account | null {
  const quota = single(rows, 'quota', quotaOf);
  const limits = new Map<string, number>();
  for (const column of new Set(rows.flatMap((row) => [...row.keys()]))) {
    if (!column.startsWith(LIMIT_PREFIX)) continue;
    const limit = single(rows, column, limitOf);
    if (limit !== undefined) limits.set(column.slice(LIMIT_PREFIX.length), limit);
  }
  const thresholds = thresholdsOf(rows);
  const subjectTag = single(rows, 'subject_tag', tagOf);
  const language = single(rows, 'language', languageOf);
  const rewriteBody = single(rows, 'rewrite_body', answerOf);
  const [senders, allow, block, signingKeys] = ['senders', 'allow', 'block', 'signing_keys'].map((column) =>
    listOf(rows, column),
  );
  const account: Account = {
    limits,
    senders: senders ?? [],
    ...(quota === undefined ? {} : { quota }),
    ...(thresholds === null ? {} : { thresholds }),
    ...(subjectTag === undefined ? {} : { subjectTag }),
    ...(language === undefined ? {} : { language }),
    ...(rewriteBody === undefined ? {} : { rewriteBody }),
    ...(allow === undefined || allow.length === 0 ? {} : { allow }),
    ...(block === undefined || block.length === 0 ? {} : { block }),
    ...(signingKeys === undefined || signingKeys.length === 0 ? {} : { signingKeys }),
  };
  const says = Object.keys(account).length > 2 || limits.size > 0 || account.senders.length > 0;
  return says ? account : null;
}

function thresholdsOf(rows: readonly Row[]): AccountThresholds | null {
  const tag = single(rows, 'tag', thresholdOf);
  const junk = single(rows, 'junk', thresholdOf);
  const reject = single(rows, 'reject', thresholdOf);
  const discard = single(rows, 'discard', thresholdOf);
  if (tag === undefined && junk === undefined && reject === undefined && discard === undefined) return null;
  return {
    ...(tag === undefined ? {} : { tag }),
    ...(junk === undefined ? {} : { junk }),
    ...(reject === undefined ? {} : { reject }),
    ...(discard === undefined ? {} : { discard }),
  };
}

/** @param read gives undefined for a text that it can't read. What is set and can't be read must not pass for nothing. */
function single<T>(
  rows: readonly Row[],
  column: string,
  read: (text: string) => T | undefined,
): T | undefined {
  for (const row of rows) {
    const [text = ''] = row.get(column) ?? [];
    if (text.trim() === '') continue;
    const value = read(text.trim());
    if (value === undefined)
      throw new NeighbourError(`the column ${column} holds something else than it should`);
    return value;
  }
  return undefined;
}

function listOf(rows: readonly Row[], column: string): readonly string[] {
  const list = rows.flatMap((row) => (row.get(column) ?? []).flatMap((text) => text.split(/[\s,]+/)));
  const words = list.filter((word) => word !== '');
  if (words.length > LIST_LIMIT)
    throw new NeighbourError(`the column ${column} has more than ${LIST_LIMIT} entries`);
  return words;
}

/** Octets, or a size with a unit such as `5G`; none and 0: no limit. */
function quotaOf(text: string): number | null | undefined {
  if (text === 'none') return null;
  const octets = sizeOf(text, 1);
  return octets === 0 ? null : octets;
}

function limitOf(text: string): number | undefined {
  return sizeOf(text, 1);
}

/** A score; `none`: the band is not used. */
function thresholdOf(text: string): number | null | undefined {
  if (text === 'none') return null;
  return THRESHOLD.test(text) ? Number(text) : undefined;
}

function answerOf(text: string): boolean | undefined {
  if (YES.test(text)) return true;
  return NO.test(text) ? false : undefined;
}

/** Yes and no switch the site's tag on and off; anything else is a tag. */
function tagOf(octets: string): string | boolean | undefined {
  const answer = answerOf(octets);
  if (answer !== undefined) return answer;
  const text = Buffer.from(octets, 'latin1').toString('utf8');
  return text.length <= TAG_LIMIT && !/[\p{Cc}\uFFFD]/u.test(text) ? text : undefined;
}

function languageOf(text: string): string | undefined {
  return LANGUAGE.test(text) ? text.replaceAll('_', '-').toLowerCase() : undefined;
}
