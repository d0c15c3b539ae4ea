/** A word found in a text. */
export interface WordMatch {
  /** Position in the list of words. */
  readonly word: number;
  readonly start: number;
  readonly end: number;
}

/** Letters, digits and what ties them together. */
const WORD_PART = /[\p{L}\p{N}\p{M}_]/u;
/** Scripts that are written without spaces: their words have no edges to be seen. */
const UNSPACED =
  /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}\p{Script=Lao}\p{Script=Khmer}\p{Script=Myanmar}\p{Script=Tibetan}]/u;

interface Word {
  readonly length: number;
  /** Whether no letter or digit may stand before it, and behind it. */
  readonly edgeBefore: boolean;
  readonly edgeBehind: boolean;
}

const LAST_CLASS = 0xffff;

/**
 * Finds many words in one pass, in time that depends on the text alone (Aho and Corasick, 1975). The transitions are one hash table, so that a list in Chinese
 * takes no more memory than one in English.
 */
export class WordMatcher {
  readonly #words: readonly Word[];
  /** By UTF-16 unit: which unit of the words it is, from 1; 0: of none. */
  readonly #classes = new Uint16Array(65_536);
  readonly #root: Int32Array;
  readonly #keys: Float64Array;
  readonly #next: Int32Array;
  readonly #mask: number;
  readonly #fail: Int32Array;
  /** The word that ends in a state; -1: none. */
  readonly #ends: Int32Array;
  /** The nearest state on the way of failures, this one included, where a word ends; 0: none. */
  readonly #outputs: Int32Array;
  #classCount = 1;

  /** @param words normal text, none of them empty and none there twice; `*` at an end takes its edge away */
  constructor(words: readonly string[]) {
    const texts = words.map((word) => word.replaceAll(/^\*|\*$/g, ''));
    this.#words = words.map((word, index) => {
      const text = texts[index] ?? '';
      return {
        length: text.length,
        edgeBefore: !word.startsWith('*') && hasEdge(firstCharacter(text)),
        edgeBehind: !word.endsWith('*') && hasEdge(lastCharacter(text)),
      };
    });
    let units = 0;
    for (const text of texts) {
      units += text.length;
      for (let at = 0; at < text.length; at++) {
        const code = text.charCodeAt(at);
        if (this.#classes[code] === 0 && this.#classCount < LAST_CLASS)
          this.#classes[code] = this.#classCount++;
      }
    }
    let size = 16;
    while (size < units * 2) size *= 2;
    this.#mask = size - 1;
    this.#keys = new Float64Array(size).fill(-1);
    this.#next = new Int32Array(size);
    this.#root = new Int32Array(this.#classCount);
    this.#ends = new Int32Array(units + 1).fill(-1);
    this.#fail = new Int32Array(units + 1);
    this.#outputs = new Int32Array(units + 1);
    this.#build(texts);
  }

  /** Tells of every place where a word stands, as long as `found` gives true. */
  search(text: string, found: (match: WordMatch) => boolean): void {
    let state = 0;
    for (let at = 0; at < text.length; at++) {
      const unit = this.#classes[text.charCodeAt(at)] ?? 0;
      state = unit === 0 ? 0 : this.#step(state, unit);
      for (let out = this.#outputs[state] ?? 0; out !== 0; out = this.#outputs[this.#fail[out] ?? 0] ?? 0) {
        const index = this.#ends[out] ?? -1;
        const word = this.#words[index];
        if (word === undefined) continue;
        const end = at + 1;
        const start = end - word.length;
        if (word.edgeBefore && WORD_PART.test(lastCharacter(text.slice(Math.max(0, start - 2), start))))
          continue;
        if (word.edgeBehind && WORD_PART.test(firstCharacter(text.slice(end, end + 2)))) continue;
        if (!found({ word: index, start, end })) return;
      }
    }
  }

  #build(texts: readonly string[]): void {
    let states = 1;
    const parents = new Int32Array(this.#fail.length);
    const units = new Uint16Array(this.#fail.length);
    const levels: number[][] = [];
    for (const [index, text] of texts.entries()) {
      let state = 0;
      for (let at = 0; at < text.length; at++) {
        const unit = this.#classes[text.charCodeAt(at)] ?? 0;
        let next = this.#child(state, unit);
        if (next === 0) {
          next = states++;
          parents[next] = state;
          units[next] = unit;
          (levels[at] ??= []).push(next);
          this.#link(state, unit, next);
        }
        state = next;
      }
      if (state !== 0) this.#ends[state] = index;
    }
    // From the root outwards: a failure leads to a shorter beginning.
    for (const [depth, level] of levels.entries()) {
      for (const state of level) {
        const fail = depth === 0 ? 0 : this.#step(this.#fail[parents[state] ?? 0] ?? 0, units[state] ?? 0);
        this.#fail[state] = fail;
        this.#outputs[state] = this.#ends[state] === -1 ? (this.#outputs[fail] ?? 0) : state;
      }
    }
  }

  #step(from: number, unit: number): number {
    let state = from;
    for (;;) {
      const next = this.#child(state, unit);
      if (next !== 0 || state === 0) return next;
      state = this.#fail[state] ?? 0;
    }
  }

  #child(state: number, unit: number): number {
    if (state === 0) return this.#root[unit] ?? 0;
    const key = state * 65_536 + unit;
    for (let slot = hash(state, unit) & this.#mask; ; slot = (slot + 1) & this.#mask) {
      const known = this.#keys[slot];
      if (known === key) return this.#next[slot] ?? 0;
      if (known === -1) return 0;
    }
  }

  #link(state: number, unit: number, next: number): void {
    if (state === 0) {
      this.#root[unit] = next;
      return;
    }
    let slot = hash(state, unit) & this.#mask;
    while (this.#keys[slot] !== -1) slot = (slot + 1) & this.#mask;
    this.#keys[slot] = state * 65_536 + unit;
    this.#next[slot] = next;
  }
}

function hash(state: number, unit: number): number {
  const mixed = Math.imul(state, 0x9e37_79b1) ^ Math.imul(unit, 0x85eb_ca6b);
  return (mixed ^ (mixed >>> 15)) >>> 0;
}

function hasEdge(character: string): boolean {
  return WORD_PART.test(character) && !UNSPACED.test(character);
}

function firstCharacter(text: string): string {
  const code = text.codePointAt(0);
  return code === undefined ? '' : String.fromCodePoint(code);
}

/** Of at least its last two UTF-16 units. */
function lastCharacter(text: string): string {
  const low = text.charCodeAt(text.length - 1);
  return low >= 0xdc00 && low <= 0xdfff ? text.slice(-2) : text.slice(-1);
}
