import { RE2JS, RE2Set } from 're2js';

import { foldLookalikes, normalText } from '../../mail/normal-text.ts';
import {
  TEXT_PLACES,
  type ContentAnswer,
  type ContentHit,
  type ContentRule,
  type TextPlace,
} from '../../ports/content-scanner.ts';
import { AttachmentExaminer } from './attachments.ts';
import { maskedExcerpt } from './excerpt.ts';
import { readContent, type MessageContent } from './message-content.ts';
import { WordMatcher } from './word-matcher.ts';

/** Matches that are shown of one rule. */
const EXCERPT_LIMIT = 3;

/** A rule, with what is found for it. */
interface Tally {
  readonly rule: ContentRule;
  count: number;
  readonly excerpts: string[];
}

/** Words of several rules in one automaton. */
interface WordList {
  readonly matcher: WordMatcher;
  /** By word: positions of the rules that have it. */
  readonly rules: readonly (readonly number[])[];
}

/** A regular expression of one rule. */
interface Pattern {
  readonly rule: number;
  readonly expression: RE2JS;
}

/** All rules of a configuration, made ready once. */
export class Examiner {
  readonly #rules: readonly ContentRule[];
  /** null: no rule has words of this kind. */
  readonly #words: WordList | null;
  readonly #folded: WordList | null;
  readonly #patterns: readonly Pattern[];
  readonly #set: RE2Set | null;

  constructor(rules: readonly ContentRule[]) {
    this.#rules = rules;
    this.#words = wordList(rules, false);
    this.#folded = wordList(rules, true);
    this.#patterns = rules.flatMap(({ patterns }, rule) =>
      patterns.map((text) => ({ rule, expression: RE2JS.compile(text, RE2JS.CASE_INSENSITIVE) })),
    );
    this.#set = this.#patterns.length === 0 ? null : new RE2Set(RE2Set.UNANCHORED, RE2JS.CASE_INSENSITIVE);
    for (const { expression } of this.#patterns) this.#set?.add(expression.pattern());
    this.#set?.compile();
  }

  /** @param wanted positions of the rules that concern this message */
  examine(message: Buffer, headerOctets: number, wanted: readonly number[]): ContentAnswer {
    const content = readContent(message, headerOctets);
    const tallies = new Map<number, Tally>();
    for (const position of wanted) {
      const rule = this.#rules[position];
      if (rule !== undefined) tallies.set(position, { rule, count: 0, excerpts: [] });
    }
    this.#searchTexts(content, tallies);
    const { unparsable, tooLarge } = content.notes;
    const attachments = new AttachmentExaminer(content, { unparsable, tooLarge });
    const hits: ContentHit[] = [];
    for (const [position, { rule, count, excerpts }] of tallies) {
      const details: string[] = [];
      if (count > 0 && count >= rule.minMatches) {
        details.push(`${count} ${count === 1 ? 'match' : 'matches'}: ${excerpts.join(', ')}`);
      }
      const attached = attachments.find(rule.attachments);
      if (attached !== null) details.push(attached);
      if (details.length > 0) hits.push({ rule: position, detail: details.join('; ') });
    }
    return { hits, unparsable: [...unparsable], tooLarge: [...tooLarge] };
  }

  #searchTexts({ texts }: MessageContent, tallies: ReadonlyMap<number, Tally>): void {
    for (const place of TEXT_PLACES) {
      const text = texts[place];
      const concerned = [...tallies.values()].filter(({ rule }) => rule.where.includes(place));
      if (text === '' || concerned.length === 0) continue;
      const has = (wanted: (rule: ContentRule) => boolean): boolean =>
        concerned.some(({ rule }) => wanted(rule));
      if (has(({ words, homoglyphs }) => words.length > 0 && !homoglyphs)) {
        searchWords(this.#words, text, place, tallies);
      }
      if (has(({ words, homoglyphs }) => words.length > 0 && homoglyphs)) {
        searchWords(this.#folded, foldLookalikes(text), place, tallies);
      }
      if (has(({ patterns }) => patterns.length > 0)) this.#searchPatterns(text, place, tallies);
    }
  }

  #searchPatterns(text: string, place: TextPlace, tallies: ReadonlyMap<number, Tally>): void {
    // One pass says which of them are worth a second one, which tells where.
    for (const index of this.#set?.match(text) ?? []) {
      const pattern = this.#patterns[index];
      const tally = pattern === undefined ? undefined : tallies.get(pattern.rule);
      if (pattern === undefined || tally === undefined || !tally.rule.where.includes(place)) continue;
      const matcher = pattern.expression.matcher(text);
      const enough = Math.max(EXCERPT_LIMIT, tally.rule.minMatches);
      while (tally.count < enough && matcher.find()) {
        const [start, end] = [matcher.start(), matcher.end()];
        if (end > start) note(tally, text, start, end, place);
      }
    }
  }
}

function searchWords(
  list: WordList | null,
  text: string,
  place: TextPlace,
  tallies: ReadonlyMap<number, Tally>,
): void {
  list?.matcher.search(text, ({ word, start, end }) => {
    for (const position of list.rules[word] ?? []) {
      const tally = tallies.get(position);
      if (tally?.rule.where.includes(place) === true) note(tally, text, start, end, place);
    }
    return true;
  });
}

function note(tally: Tally, text: string, start: number, end: number, place: TextPlace): void {
  tally.count++;
  if (tally.excerpts.length < EXCERPT_LIMIT)
    tally.excerpts.push(`${place} ${maskedExcerpt(text, start, end)}`);
}

function wordList(rules: readonly ContentRule[], homoglyphs: boolean): WordList | null {
  const positions = new Map<string, number[]>();
  for (const [position, rule] of rules.entries()) {
    if (rule.homoglyphs !== homoglyphs) continue;
    for (const written of rule.words) {
      const normal = normalText(written).trim();
      const word = homoglyphs ? foldLookalikes(normal) : normal;
      const known = positions.get(word);
      if (known === undefined) positions.set(word, [position]);
      else if (!known.includes(position)) known.push(position);
    }
  }
  if (positions.size === 0) return null;
  return { matcher: new WordMatcher([...positions.keys()]), rules: [...positions.values()] };
}
