import { foldedValue, remoteValue } from '../mail/fold.ts';
import type { HeaderField } from '../mail/header.ts';
import type { SpamScan } from '../mail/spam-scan.ts';
import type { Rules } from './rules.ts';
import type { Verdict } from './verdict.ts';

/** SpamAssassin draws no more stars than this (`X-Spam-Level`). */
const STAR_LIMIT = 50;
/** Fields of the scanner's own (`add_header` of its configuration) beyond the five it always knows. */
const EXTRA_LIMIT = 32;
/** Column at which SpamAssassin folds the list of tests. */
const COLUMN = 78;

const FLAG: HeaderField = { name: 'X-Spam-Flag', value: ' YES' };
const KNOWN = new Set(
  ['checker-version', 'flag', 'level', 'status', 'report'].map((word) => `x-spam-${word}`),
);
const STATUS = /^([\t ]*)(Yes|No)(,[\t ]*score=)(-?[\d.]+)([\t\n\r ]+required=)(-?[\d.]+)/;

/** What may follow `X-Spam-`: RFC 5322 §3.6.8, ftext. */
const NAME = /^[!-9;-~]{8,77}$/;

/** Fields by which SpamAssassin speaks; whoever else wrote them, they are not to be believed. */
export function isSpamField(name: string): boolean {
  return name.length > 7 && name.slice(0, 7).toLowerCase() === 'x-spam-';
}

/**
 * The X-Spam-* fields for one verdict, in SpamAssassin's order. The scanner's own text stays byte for byte wherever it agrees with
 * the verdict; score, threshold and Yes or No become ours where it does not, because the reader is told what was decided.
 *
 * Without a scan the flag alone says what the verdict is, and that only of spam: nothing is claimed about points that nobody counted.
 */
export function spamFields(
  scan: SpamScan | null,
  verdict: Verdict,
  rules: Rules,
  hostname: string,
): HeaderField[] {
  const marked = verdict.tagged || verdict.kind === 'junk';
  if (scan === null) return marked ? [FLAG] : [];
  const score = verdict.score ?? scan.score;
  const own = new Map<string, HeaderField>();
  const extra: HeaderField[] = [];
  for (const field of scan.fields) {
    const name = field.name.toLowerCase();
    if (!NAME.test(name) || !isSpamField(name) || name.startsWith('x-spam-prev-')) continue;
    if (!KNOWN.has(name)) extra.push(field);
    else if (!own.has(name)) own.set(name, field);
  }
  const report = own.get('x-spam-report');
  // It counts with more decimals than it shows.
  const level = score === scan.score ? own.get('x-spam-level') : undefined;
  const fields: HeaderField[] = [
    // SpamAssassin takes its own fields off before it learns a message only when it sees this one.
    own.get('x-spam-checker-version') ?? {
      name: 'X-Spam-Checker-Version',
      value: ` SpamAssassin on ${hostname}`,
    },
  ];
  if (marked) fields.push(FLAG);
  fields.push(level ?? { name: 'X-Spam-Level', value: ` ${stars(score)}` }, {
    name: 'X-Spam-Status',
    value: status(scan, own.get('x-spam-status')?.value, score, marked, rules),
  });
  if (marked && report !== undefined) fields.push(report);
  fields.push(...extra.slice(0, EXTRA_LIMIT));
  return fields.map(({ name, value }) => ({ name, value: remoteValue(name, value) }));
}

function stars(score: number): string {
  return '*'.repeat(Math.min(STAR_LIMIT, Math.max(0, Math.floor(score))));
}

function status(
  scan: SpamScan,
  written: string | undefined,
  score: number,
  marked: boolean,
  rules: Rules,
): string {
  const threshold = rules.thresholds.tag ?? rules.thresholds.junk;
  const required = threshold ?? scan.required;
  // Without a threshold of ours the scanner's word is the only one there is.
  const spam = marked || (threshold === null && scan.score >= scan.required);
  const answer = spam ? 'Yes' : 'No';
  const text = written === undefined ? '' : foldedValue(written);
  const parts = STATUS.exec(text);
  if (parts === null)
    return synthesized(`${answer}, score=${points(score)} required=${points(required)}`, scan);
  const [whole, space = ' ', , beforeScore = '', theirScore = '', beforeRequired = '', theirRequired = ''] =
    parts;
  const shownScore = Number(theirScore) === score ? theirScore : points(score);
  const shownRequired = Number(theirRequired) === required ? theirRequired : points(required);
  return `${space}${answer}${beforeScore}${shownScore}${beforeRequired}${shownRequired}${text.slice(whole.length)}`;
}

function synthesized(head: string, scan: SpamScan): string {
  let text = ` ${head} tests=`;
  let column = 'X-Spam-Status:'.length + text.length;
  (scan.rules.length === 0 ? ['none'] : scan.rules).forEach((rule, index) => {
    const word = index === 0 ? rule : `,${rule}`;
    if (index > 0 && column + word.length > COLUMN) {
      text += `,\r\n\t${rule}`;
      column = rule.length + 8;
    } else {
      text += word;
      column += word.length;
    }
  });
  return text;
}

/** Points as SpamAssassin writes them: one decimal, more only where an operator's rule has more. */
function points(value: number): string {
  const rounded = Math.round(value * 1000) / 1000;
  return Number.isInteger(rounded) ? rounded.toFixed(1) : String(rounded);
}
