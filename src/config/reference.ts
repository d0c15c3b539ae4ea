import type { CheckDefinition } from '../checks/check.ts';
import { isRecord, keyInfo, shapeOf, tablesOf, type KeyInfo } from './introspect.ts';
import { configSchema } from './schema.ts';
import { ACTION_WORDS } from './values.ts';
import type { Action } from '../verdict/rules.ts';
import type { z } from 'zod';

type Schema = z.core.$ZodType;

/** One table of the file, as both documents go through it. */
interface Section {
  /** Its header without brackets; empty: the top of the file. */
  readonly name: string;
  readonly list: boolean;
  readonly description: string;
  readonly keys: readonly (readonly [name: string, info: KeyInfo])[];
  readonly record: boolean;
  /** Whether it belongs to an entry of a list. */
  readonly optional: boolean;
}

/** All tables in the order of the schema, which is that of the file: the keys of the top first, as TOML wants it. */
function sections(schema: Schema, name = '', list = false, optional = list): Section[] {
  const keys: [string, KeyInfo][] = [];
  const below: Section[] = [];
  for (const [key, inner] of Object.entries(shapeOf(schema) ?? {})) {
    const path = name === '' ? key : `${name}.${key}`;
    const entries = tablesOf(inner);
    const { description } = keyInfo(inner);
    if (isRecord(inner))
      below.push({ name: path, list: false, description, keys: [], record: true, optional });
    else if (entries !== null) below.push(...describedBy(sections(entries, path, true), description));
    else if (shapeOf(inner) !== null && !isRule(inner)) below.push(...sections(inner, path, false, optional));
    else keys.push([key, keyInfo(inner)]);
  }
  return [{ name, list, description: keyInfo(schema).description, keys, record: false, optional }, ...below];
}

function describedBy(all: readonly Section[], description: string): Section[] {
  return all.map((section, index) => (index === 0 ? { ...section, description } : section));
}

/** A value that may be a word as well as a table is a value. */
function isRule(schema: Schema): boolean {
  return keyInfo(schema).type === 'rule';
}

const WIDTH = 100;

/** `examples/postern.toml`: every key, commented out, with its default. */
export function exampleFile(checks: readonly CheckDefinition[], schema: Schema = configSchema): string {
  const lines = [
    ...comment(
      'Configuration of Postern. Every key is here with its default; to change one, take the "#" away.',
    ),
    ...comment(
      'Relative paths start from the folder of this file. "postern check" says what is wrong in it, and where.',
    ),
    '#',
    ...comment('Written by "npm run generate" from the program; docs/configuration.md says more.'),
  ];
  for (const section of sections(schema)) {
    if (section.keys.length === 0 && !section.record && !section.list) {
      // A table that only holds others; its description stands above the first of them.
      if (section.name !== '') lines.push('', ...comment(section.description));
      continue;
    }
    if (section.name !== '') lines.push('', ...comment(section.description), exampleHeader(section));
    for (const [name, info] of section.keys) lines.push(...exampleKey(name, info));
    if (section.record) lines.push(...exampleRules(section.name, checks));
  }
  return `${lines.join('\n')}\n`;
}

/** The headers stand as they are, so that a key that is uncommented is in its section; but a list's entry is not there yet. */
function exampleHeader({ name, list, optional }: Section): string {
  if (list) return `#[[${name}]]`;
  return optional ? `#[${name}]` : `[${name}]`;
}

function exampleKey(name: string, info: KeyInfo): string[] {
  const value = info.fallback ?? info.example;
  const told = info.fallback === undefined || info.fallback === null;
  const text =
    told && info.fallbackText !== undefined
      ? `${info.description} Default: ${info.fallbackText}.`
      : info.description;
  return ['', ...comment(text), ...assignment(name, value)];
}

/** The rules of [rules] and [unavailable], with what they are when nothing is said. */
function exampleRules(name: string, checks: readonly CheckDefinition[]): string[] {
  const lines: string[] = [];
  const told = new Set<string>();
  for (const check of checks) {
    if (name === 'unavailable' || name.endsWith('.unavailable')) {
      lines.push(`#${check.name} = ${tomlValue(check.unavailable)}`);
      if (name !== 'unavailable') return lines;
      continue;
    }
    // A check that goes on with another's work may find the same.
    const codes = Object.entries(check.codes).filter(([code]) => !told.has(code));
    if (codes.length === 0) continue;
    lines.push('');
    for (const [code, { meaning, action }] of codes) {
      told.add(code);
      lines.push(...comment(meaning), `#${code} = ${tomlValue(action)}`);
    }
    if (name !== 'rules') return lines; // one check is example enough for a table that only holds exceptions
  }
  return lines;
}

/** Text as comment lines: "# " before text, "#" alone before what can be uncommented. */
function comment(text: string): string[] {
  const lines: string[] = [];
  let line = '#';
  for (const word of text.split(/\s+/)) {
    if (line.length + word.length >= WIDTH) {
      lines.push(line);
      line = '#';
    }
    line += ` ${word}`;
  }
  return line.trimEnd() === '#' ? lines : [...lines, line];
}

function tomlValue(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value);
  if (typeof value === 'number' || typeof value === 'boolean') return String(value);
  if (Array.isArray(value)) return `[${value.map(tomlValue).join(', ')}]`;
  if (typeof value === 'object' && value !== null) {
    const entries = Object.entries(value).map(([name, entry]) => `${name} = ${tomlValue(entry)}`);
    return `{ ${entries.join(', ')} }`;
  }
  throw new TypeError('a default or an example is a text, a number, true, false, a list or a table');
}

/** A key with its value, commented out; a long list on lines of its own. */
function assignment(name: string, value: unknown): string[] {
  const line = `#${name} = ${tomlValue(value)}`;
  if (!Array.isArray(value) || line.length <= WIDTH) return [line];
  return [`#${name} = [`, ...value.map((item) => `#  ${tomlValue(item)},`), '#]'];
}

const ACTIONS: Readonly<Record<Action['kind'], string>> = {
  ignore: 'Nothing. The finding still stands in the record and in Authentication-Results.',
  score: '`"score 2.5"`: adds points (or takes them, `"score -1"`) to the score that [thresholds] are about.',
  tag: 'Marks the message as spam: `X-Spam-Flag: YES` and the subject tag.',
  junk: 'Delivers the message with spam headers, for the Sieve rule that files it as junk.',
  quarantine:
    'Milter and policy server: Postfix puts the message on hold. LMTP filter: it has no quarantine yet, so the message is delivered with every mark of spam and `X-Postern-Verdict: quarantine`. For single domains or users the policy server needs its line in smtpd_data_restrictions as well.',
  defer: 'Refuses for now (4xx): the sender tries again later.',
  reject: 'Refuses for good (5xx), with the trace id in the reply.',
  discard: 'Takes the message and does not deliver it. Only the record knows of it.',
  allow:
    'Sets aside what the waivable checks found about this message (who the client is: HELO, PTR, MX, SPF, block lists, greylisting). Limits, quota and content are judged all the same.',
};

/** `docs/configuration.md`: every key with type, default and meaning, and every finding code. */
export function referencePage(checks: readonly CheckDefinition[], schema: Schema = configSchema): string {
  const parts = [
    '# Configuration',
    'One TOML file for all daemons. `postern check` reads it and names every mistake with file, line and column. The file is the one given with `--config`, else `postern.toml` in the current folder, else `/etc/postern/postern.toml`; without any of them the defaults below hold. `examples/postern.toml` has every key with its default.',
    'Relative paths start from the folder of the file. In a list of texts an entry `"file:PATH"` stands for the lines of that file, which is read again at a reload; empty lines and lines that begin with `#` do not count. This page is written by `npm run generate` from the program.',
    '## Values',
    table(['Type', 'Written as'], VALUE_FORMS),
  ];
  for (const section of sections(schema)) parts.push(...sectionPage(section, checks));
  parts.push(
    '## Actions',
    'What a rule can do. When several rules speak about a message, the most severe one stands: discard, reject, defer, quarantine, junk, and then delivery, tagged or not.',
    table(
      ['Action', 'What happens'],
      [...ACTION_WORDS, 'score' as const].map((word) => [`\`${word}\``, ACTIONS[word]]),
    ),
    'A rule is an action, such as `"reject"`, or a table:',
    table(
      ['Key', 'Default', 'Meaning'],
      [
        ['`action`', '', 'The action.'],
        ['`shadow`', '`false`', 'true: the rule is decided, recorded and counted, and never acted on.'],
        ['`text`', '', "The operator's own words for a refusal: up to 200 printable ASCII characters."],
      ],
    ),
  );
  return `${parts.filter((part) => part !== '').join('\n\n')}\n`;
}

const VALUE_FORMS: readonly (readonly string[])[] = [
  ['duration', '`"250ms"`, `"5s"`, `"10m"`, `"2h"`, `"30d"`'],
  ['size', '`"800B"`, `"512KiB"`, `"10MiB"`, `"1GiB"`'],
  ['socket address', '`"127.0.0.1:8891"`, `"[::1]:8891"`, `"localhost:24"`, `"unix:/run/postern/milter"`'],
  ['name server', '`"192.0.2.53"`, `"127.0.0.1:5353"`, `"[2001:db8::53]:53"`'],
  ['list of networks', '`["127.0.0.0/8", "2001:db8::/32", "192.0.2.7"]`'],
  ['permissions', '`"0660"`'],
  ['points or false', '`5`, `7.5`, `false`'],
  ['login action', '`"ignore"`, `"delay 4s"`, `"refuse"`'],
  ['login delay', '`"ignore"`, `"delay 4s"`'],
  ['rule', '`"reject"`, `"score 2.5"`, `{ action = "reject", shadow = true, text = "…" }`'],
];

function sectionPage(section: Section, checks: readonly CheckDefinition[]): string[] {
  const { name, list, description, keys, record } = section;
  const heading = name === '' ? 'Top of the file' : list ? `\`[[${name}]]\`` : `\`[${name}]\``;
  const parts = [`## ${heading}`, escapeText(description)];
  if (list) parts.push('Any number of these.');
  if (keys.length > 0) {
    parts.push(
      table(
        ['Key', 'Type', 'Default', 'Meaning'],
        keys.map(([key, info]) => [
          `\`${key}\``,
          escapeText(info.type),
          defaultCell(info),
          escapeText(info.description),
        ]),
      ),
    );
  }
  if (record && name === 'rules') parts.push(...codesPage(checks));
  if (record && name === 'unavailable') {
    parts.push(
      table(
        ['Check', 'Default'],
        checks.map((check) => [`\`${check.name}\``, `\`"${check.unavailable}"\``]),
      ),
    );
  }
  if (record && name.startsWith('override.')) parts.push('Codes and actions are those of `[rules]`.');
  return parts;
}

function codesPage(checks: readonly CheckDefinition[]): string[] {
  const parts = ['A code may be written with or without quotes: `spf.fail` or `"spf.fail"`.'];
  for (const check of checks) {
    const rows = Object.entries(check.codes).map(([code, { meaning, action }]) => [
      `\`${code}\``,
      escapeText(meaning),
      `\`"${action}"\``,
    ]);
    // What its table makes of it: codes of the operator's own, which the text of the table tells of.
    if (rows.length === 0) continue;
    parts.push(
      `### Findings of \`${check.name}\``,
      escapeText(check.summary),
      table(['Code', 'Meaning', 'Default'], rows),
    );
  }
  return parts;
}

function defaultCell(info: KeyInfo): string {
  if (info.fallbackText !== undefined) return escapeText(info.fallbackText);
  if (info.fallback === undefined || info.fallback === null) return 'none: must be given';
  return `\`${tomlValue(info.fallback)}\``;
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  if (rows.length === 0) return '';
  const lines = [head, head.map(() => '---'), ...rows];
  return lines.map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}

function escapeText(text: string): string {
  return text.replaceAll(/[|<>*]/g, (character) => `\\${character}`);
}
