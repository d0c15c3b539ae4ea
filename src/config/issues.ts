import type { z } from 'zod';

import { nearest, oneOf, shown, type Position, type Problem } from './errors.ts';
import { schemaAt, shapeOf } from './introspect.ts';
import { nodeAt, plain, type TomlTable } from './toml.ts';

type Issue = z.core.$ZodIssue;
type Path = readonly PropertyKey[];

/** A problem that the schema has found. */
export interface IssueProblem extends Problem {
  readonly path: Path;
  /** Whether a key is wanted that is not there. */
  readonly missing: boolean;
}

/** What the schema has found wrong, in the operator's words and with its place in the file. */
export function readIssues(
  file: string,
  root: TomlTable,
  schema: z.core.$ZodType,
  issues: readonly Issue[],
): IssueProblem[] {
  return new IssueReader(file, root, schema).problems(issues);
}

class IssueReader {
  readonly #file: string;
  readonly #root: TomlTable;
  readonly #schema: z.core.$ZodType;

  constructor(file: string, root: TomlTable, schema: z.core.$ZodType) {
    this.#file = file;
    this.#root = root;
    this.#schema = schema;
  }

  problems(issues: readonly Issue[]): IssueProblem[] {
    return issues.flatMap((issue) => this.#read(issue, issue.path));
  }

  #read(issue: Issue, path: Path): IssueProblem[] {
    if (issue.code === 'unrecognized_keys') return issue.keys.map((key) => this.#unknownKey(path, key));
    const node = nodeAt(this.#root, path);
    if (node === undefined) return [this.#missing(path)];
    if (issue.code === 'invalid_union' && !isExpectation(issue.message)) {
      const branch = meantBranch(issue.errors, node.kind === 'table');
      return branch.flatMap((inner) => this.#read(inner, [...path, ...inner.path]));
    }
    const value = plain(node);
    return [
      {
        file: this.#file,
        position: node.at,
        key: keyPath(path),
        wrong: `found ${shown(value)}`,
        remedy: remedyFor(issue, value),
        path,
        missing: false,
      },
    ];
  }

  #missing(path: Path): IssueProblem {
    const name = String(path.at(-1) ?? '');
    const table = nodeAt(this.#root, path.slice(0, -1)) ?? this.#root;
    return {
      file: this.#file,
      position: table.keyAt,
      key: keyPath(path),
      wrong: `the key "${name}" is missing`,
      remedy: `add ${name} = …`,
      path,
      missing: true,
    };
  }

  #unknownKey(path: Path, key: string): IssueProblem {
    const position: Position | null = nodeAt(this.#root, [...path, key])?.keyAt ?? null;
    return {
      file: this.#file,
      position,
      key: keyPath([...path, key]),
      wrong: 'no such key',
      remedy: this.#meantKey(path, key),
      path: [...path, key],
      missing: false,
    };
  }

  #meantKey(path: Path, key: string): string {
    const shape = schemaAt(this.#schema, path);
    const known = Object.keys((shape === null ? null : shapeOf(shape)) ?? {});
    const near = nearest(key, known);
    if (near !== null) return `did you mean "${near}"?`;
    const sections = this.#sectionsWith(key);
    if (sections !== null) return sections;
    return `expected ${oneOf(known)}`;
  }

  /** A right key in the wrong place: where it belongs. */
  #sectionsWith(key: string): string | null {
    const top = shapeOf(this.#schema) ?? {};
    if (Object.hasOwn(top, key)) {
      return shapeOf(top[key] ?? this.#schema) === null
        ? `"${key}" belongs at the top of the file, before the first [section]`
        : `[${key}] is a section of its own`;
    }
    const sections: string[] = [];
    for (const [name, section] of Object.entries(top)) {
      if (Object.hasOwn(shapeOf(section) ?? {}, key)) sections.push(`[${name}]`);
    }
    return sections.length === 0 ? null : `"${key}" belongs in ${sections.join(' or ')}`;
  }
}

/** A rule is a word or a table: what the operator wrote says which of the two sets of issues is of use. */
function meantBranch(branches: readonly (readonly Issue[])[], isTable: boolean): readonly Issue[] {
  const aboutTable = (issues: readonly Issue[]): boolean =>
    issues.every((issue) => issue.path.length > 0 || issue.code === 'unrecognized_keys');
  return branches.find((issues) => aboutTable(issues) === isTable) ?? branches[0] ?? [];
}

/** Our own messages begin so; those of the schema library don't. */
function isExpectation(message: string): boolean {
  return message.startsWith('expected ');
}

/** `signing.key[2].file`: entries count from 1, as people do. */
export function keyPath(path: Path): string {
  let text = '';
  for (const key of path) {
    if (typeof key === 'number') text += `[${key + 1}]`;
    else text += `${text === '' ? '' : '.'}${shownKey(String(key))}`;
  }
  return text;
}

function shownKey(key: string): string {
  if (/^[\w.-]{1,80}$/.test(key)) return key;
  return shown(key);
}

function remedyFor(issue: Issue, value: unknown): string {
  if (isExpectation(issue.message)) return withGuess(issue.message, knownWords(issue), value);
  switch (issue.code) {
    case 'invalid_type':
      return `expected ${TYPE_WORDS[issue.expected] ?? issue.expected}`;
    case 'invalid_value': {
      const words = issue.values.map(String);
      const boolean = issue.values.some((word) => typeof word === 'boolean');
      return withGuess(`expected ${boolean ? words.join(' or ') : oneOf(words)}`, words, value);
    }
    case 'too_small':
    case 'too_big':
      return `expected ${limit(issue)}`;
    case 'invalid_format':
    case 'not_multiple_of':
    case 'unrecognized_keys':
    case 'invalid_union':
    case 'invalid_key':
    case 'invalid_element':
    case 'custom':
      return `expected something else: ${issue.message}`;
  }
}

const TYPE_WORDS: Readonly<Record<string, string>> = {
  string: 'a text in quotes',
  number: 'a number',
  int: 'a whole number',
  boolean: 'true or false',
  object: 'a table: a [section], or keys in braces',
  record: 'a table: a [section], or keys in braces',
  array: 'a list in brackets: [ … ]',
};

function limit(issue: Extract<Issue, { code: 'too_small' | 'too_big' }>): string {
  const least = issue.code === 'too_small';
  const bound = least ? issue.minimum : issue.maximum;
  const words = least ? `at least ${bound}` : `at most ${bound}`;
  switch (issue.origin) {
    case 'string':
      return `${words} characters`;
    case 'array':
    case 'set':
      return `${words} ${Number(bound) === 1 ? 'entry' : 'entries'}`;
    case 'number':
    case 'int':
    case 'bigint':
    case 'date':
    case 'file':
    default: // the library's type leaves the origin open
      return words;
  }
}

function knownWords(issue: Issue): readonly string[] {
  if (issue.code !== 'custom') return [];
  const known: unknown = issue.params?.['known'];
  return Array.isArray(known) ? known.map(String) : [];
}

function withGuess(expectation: string, known: readonly string[], value: unknown): string {
  const near = typeof value === 'string' ? nearest(value, known) : null;
  return near === null ? expectation : `did you mean "${near}"? ${expectation}`;
}
