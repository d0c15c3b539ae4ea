import { parseTOML, ParseError, type AST } from 'toml-eslint-parser';

import type { Position } from './errors.ts';
import { explainSyntax, type SyntaxProblem } from './toml-syntax.ts';

interface Placed {
  /** Where the key stands that leads here; for an entry of a list, where the entry stands. */
  readonly keyAt: Position;
  /** Where the value stands; for a `[table]`, its name. */
  readonly at: Position;
}

/** What the file says, with the place of everything. */
export type TomlNode = TomlTable | TomlList | TomlScalar;

export interface TomlTable extends Placed {
  readonly kind: 'table';
  readonly entries: Map<string, TomlNode>;
}

export interface TomlList extends Placed {
  readonly kind: 'list';
  readonly items: TomlNode[];
}

export interface TomlScalar extends Placed {
  readonly kind: 'scalar';
  readonly value: string | number | boolean | Date;
}

export interface TomlReading {
  readonly root: TomlTable;
  readonly problems: readonly SyntaxProblem[];
  /** false: some of the file could not be read, and what it says elsewhere is better not judged. */
  readonly usable: boolean;
}

/** So many syntax mistakes are named in one go. */
const MOST_MISTAKES = 20;

const START: Position = { line: 1, column: 1 };

/**
 * Reads TOML 1.0 and goes on after a mistake where that is safe: when the line is wrong by itself, it is left out and the rest is
 * read again, so that the operator hears of everything at once.
 */
export function readToml(text: string): TomlReading {
  const lines = text.split('\n');
  const problems: SyntaxProblem[] = [];
  for (;;) {
    try {
      const program = parseTOML(lines.join('\n'), { tomlVersion: '1.0.0' });
      return { root: tree(program), problems, usable: true };
    } catch (error) {
      if (!(error instanceof ParseError)) throw error;
      const mistake = explainSyntax(lines, error);
      problems.push(mistake);
      const again = mistake.leaveOut;
      if (again === null || problems.length === MOST_MISTAKES) {
        return { root: emptyTable(), problems, usable: false };
      }
      lines.fill('', again.from, again.to);
    }
  }
}

function emptyTable(keyAt: Position = START, at: Position = keyAt): TomlTable {
  return { kind: 'table', keyAt, at, entries: new Map() };
}

function tree(program: AST.TOMLProgram): TomlTable {
  const root = emptyTable();
  const [top] = program.body;
  for (const statement of top.body) {
    if (statement.type === 'TOMLKeyValue') {
      put(root, statement);
      continue;
    }
    const table = open(root, statement);
    for (const pair of statement.body) put(table, pair);
  }
  return root;
}

/** The table that a `[header]` or `[[header]]` begins. */
function open(root: TomlTable, header: AST.TOMLTable): TomlTable {
  const keys = header.key.keys;
  let table = root;
  for (const [index, key] of keys.entries()) {
    const at = place(key);
    if (index < keys.length - 1 || header.kind === 'standard') {
      table = step(table, nameOf(key), at);
      continue;
    }
    const known = table.entries.get(nameOf(key));
    const list: TomlList = known?.kind === 'list' ? known : { kind: 'list', keyAt: at, at, items: [] };
    table.entries.set(nameOf(key), list);
    table = emptyTable(at);
    list.items.push(table);
  }
  return table;
}

/** One key further down; in a list of tables, its last one (TOML 1.0, "Array of Tables"). */
function step(table: TomlTable, name: string, at: Position): TomlTable {
  const known = table.entries.get(name);
  const inner = known?.kind === 'list' ? known.items.at(-1) : known;
  if (inner?.kind === 'table') return inner;
  const made = emptyTable(at);
  table.entries.set(name, made);
  return made;
}

function put(table: TomlTable, pair: AST.TOMLKeyValue): void {
  const keys = pair.key.keys;
  let inner = table;
  for (const [index, key] of keys.entries()) {
    if (index < keys.length - 1) inner = step(inner, nameOf(key), place(key));
    else inner.entries.set(nameOf(key), nodeOf(pair.value, place(key)));
  }
}

function nodeOf(content: AST.TOMLContentNode, keyAt: Position): TomlNode {
  const at = place(content);
  switch (content.type) {
    case 'TOMLInlineTable': {
      const table = emptyTable(keyAt, at);
      for (const pair of content.body) put(table, pair);
      return table;
    }
    case 'TOMLArray':
      return { kind: 'list', keyAt, at, items: content.elements.map((item) => nodeOf(item, place(item))) };
    case 'TOMLValue':
      return { kind: 'scalar', keyAt, at, value: content.value };
  }
}

function nameOf(key: AST.TOMLBare | AST.TOMLQuoted): string {
  return key.type === 'TOMLBare' ? key.name : key.value;
}

function place(node: AST.TOMLNode): Position {
  return { line: node.loc.start.line, column: node.loc.start.column + 1 };
}

/** The plain value, for the schema. */
export function plain(node: TomlNode): unknown {
  switch (node.kind) {
    case 'scalar':
      return node.value;
    case 'list':
      return node.items.map(plain);
    case 'table':
      return Object.fromEntries([...node.entries].map(([name, entry]) => [name, plain(entry)]));
  }
}

/** The node at a path; undefined when the file doesn't have it. */
export function nodeAt(root: TomlTable, path: readonly PropertyKey[]): TomlNode | undefined {
  let node: TomlNode | undefined = root;
  for (const key of path) {
    if (node?.kind === 'table') node = node.entries.get(String(key));
    else if (node?.kind === 'list') node = node.items[Number(key)];
    else return undefined;
  }
  return node;
}
