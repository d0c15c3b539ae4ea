import { isUtf8 } from 'node:buffer';
import { dirname, resolve } from 'node:path';

import type { AnyBoundCheck, CheckDefinition } from '../checks/check.ts';
import { CHECKS } from '../checks/index.ts';
import type { Config, PolicyView } from './config.ts';
import { readDirectoryFiles } from './directory-files.ts';
import { hasKeyLookups } from './directory-sources.ts';
import { ConsistencyCheck, controlCharacters, isEnabled } from './consistency.ts';
import { inFileOrder, type Position, type Problem } from './errors.ts';
import { readSmallFile } from './files.ts';
import { readApiKey } from './logins-key.ts';
import { keyPath, readIssues, type IssueProblem } from './issues.ts';
import { readSigningKey } from './keys.ts';
import { readKeysRedisFiles } from './keys-redis.ts';
import { readListFiles } from './list-files.ts';
import { NamedFiles, type Mistake } from './named-files.ts';
import { mergePolicy } from './policy.ts';
import { readRedisFiles } from './redis.ts';
import { configSchema, schemaFor, type ConfigFile } from './schema.ts';
import { sealingOf, signingOf } from './signing.ts';
import { nodeAt, plain, readToml, type TomlTable } from './toml.ts';
import { readUpstreamFiles } from './upstream.ts';
import { readWebhookHeader } from './webhook-header.ts';

export type LoadResult =
  | {
      readonly ok: true;
      readonly config: Config;
      /** What works, and had better be changed. */
      readonly notes: readonly string[];
      /** Signing keys that can't be used. They stop the mail of their own domain, and nothing else. */
      readonly faults: readonly Problem[];
    }
  | { readonly ok: false; readonly problems: readonly Problem[] };

/** Some 20,000 overrides fit. */
const LARGEST_FILE = 4 * 1024 * 1024;

/**
 * Reads the configuration, with the keys it names, into one frozen value; or names all that is wrong with it.
 *
 * @param path of the file; null: the embedded defaults
 */
export async function loadConfig(
  path: string | null,
  checks: readonly CheckDefinition[] = CHECKS,
): Promise<LoadResult> {
  const name = path ?? '(defaults)';
  const text = path === null ? { ok: true as const, text: '' } : await readText(path);
  if (!text.ok) return { ok: false, problems: [text.problem] };
  const { root, problems: mistakes, usable } = readToml(text.text);
  const problems: Problem[] = mistakes.map(({ position, wrong, remedy }) => ({
    file: name,
    position,
    key: '',
    wrong,
    remedy,
  }));
  if (!usable) return { ok: false, problems: inFileOrder(problems) };

  const folder = path === null ? process.cwd() : dirname(resolve(path));
  problems.push(...(await readListFiles(name, root, folder)));
  problems.push(...joinCodes(name, root), ...controlCharacters(name, root));
  const consistency = new ConsistencyCheck(name, root, checks);
  consistency.names();
  const read = readValues(name, root, checks);
  // What a line that could not be read says is not missing.
  problems.push(...read.problems.filter((problem) => mistakes.length === 0 || !problem.missing));
  const faults: Problem[] = [];
  const at = ({
    place,
    wrong,
    remedy,
  }: Omit<Mistake, 'place'> & { place: readonly PropertyKey[] }): Problem => {
    const position = nodeAt(root, place)?.at ?? null;
    return { file: name, position, key: keyPath(place), wrong, remedy };
  };
  if (read.file !== null) {
    consistency.values(read.file, new Set(read.problems.map(({ key }) => key)));
    for (const [index, entry] of read.file.signing.key.entries()) {
      const key = await readSigningKey(resolve(folder, entry.file));
      const place = ['signing', 'key', index, 'file'];
      if (!key.ok) faults.push(at({ place, ...key }));
      else if (key.note !== null) consistency.notes.push(`${keyPath(place)}: ${key.note}`);
    }
  }
  const named = new NamedFiles(folder);
  const held = read.file === null ? null : await readNamedFiles(read.file, named);
  problems.push(...named.mistakes.map(at));
  problems.push(...consistency.problems);
  if (read.file === null || held === null || problems.length > 0)
    return { ok: false, problems: withoutRepeats([...problems, ...faults]) };
  const file = { ...read.file, state: { ...read.file.state, folder: stateFolder(read.file, root, folder) } };
  const bound = bindChecks(file, root, checks);
  consistency.boundCodes(file, bound);
  if (consistency.problems.length > 0) return { ok: false, problems: withoutRepeats(consistency.problems) };
  const policy = mergePolicy(file, checks, bound);
  const config: Config = {
    path: path === null ? null : resolve(path),
    file,
    authservId: file.site.authserv_id ?? file.site.hostname,
    policy,
    outgoingPolicy:
      file.thresholds.outgoing === undefined ? policy : mergePolicy(file, checks, bound, null, 'out'),
    checks: bound.filter(
      ({ stage, policyOnly }) => stage === 'message' || (stage === 'mail' && policyOnly !== true),
    ),
    views: policyViews(file, checks, bound),
    signing: signingOf(file.signing, folder, file.signing.redis.enabled || hasKeyLookups(file.directory)),
    sealing: sealingOf(file.arc, file.signing),
    ...held,
  };
  return { ok: true, config: frozen(config), notes: consistency.notes, faults: inFileOrder(faults) };
}

/** What the files hold that the configuration names, but for lists and signing keys. */
async function readNamedFiles(
  { logins, notices, state, 'lmtp-filter': lmtpFilter, directory, signing }: ConfigFile,
  files: NamedFiles,
): Promise<Pick<Config, 'logins' | 'notices' | 'redis' | 'keysRedis' | 'directory' | 'upstreamTls'>> {
  return {
    logins: { apiKey: await readApiKey(files, logins.enabled ? logins.api_key_file : undefined) },
    notices: { webhookHeader: await readWebhookHeader(files, notices.webhook_header_file) },
    redis: await readRedisFiles(state.redis, files),
    keysRedis: await readKeysRedisFiles(signing.redis, state.redis, files),
    upstreamTls: await readUpstreamFiles(lmtpFilter, files),
    directory: await readDirectoryFiles(directory, files),
  };
}

type Text = { readonly ok: true; readonly text: string } | { readonly ok: false; readonly problem: Problem };

async function readText(path: string): Promise<Text> {
  const reading = await readSmallFile(path, LARGEST_FILE);
  if (!reading.ok) {
    const remedy = 'expected a TOML file; examples/postern.toml is one';
    return {
      ok: false,
      problem: { file: path, position: null, key: '', wrong: `can't be read: ${reading.detail}`, remedy },
    };
  }
  const { octets } = reading;
  if (isUtf8(octets)) return { ok: true, text: new TextDecoder().decode(octets) };
  const wrong = 'this is not UTF-8';
  const remedy = 'save the file as UTF-8, or write the character as \\uXXXX';
  return { ok: false, problem: { file: path, position: firstInvalid(octets), key: '', wrong, remedy } };
}

/** Where a file stops being UTF-8. */
function firstInvalid(octets: Buffer): Position {
  let line = 1;
  let start = 0;
  for (;;) {
    const feed = octets.indexOf(0x0a, start);
    const end = feed === -1 ? octets.length : feed;
    if (feed === -1 || !isUtf8(octets.subarray(start, end))) {
      // Of a broken line, the decoder puts U+FFFD where the first sequence goes wrong; one that was written there counts the same.
      const decoded = new TextDecoder().decode(octets.subarray(start, end));
      return { line, column: decoded.indexOf('\uFFFD') + 1 };
    }
    line += 1;
    start = feed + 1;
  }
}

/** `spf.fail = "reject"` is two keys to TOML; to an operator it is the code. Both ways of writing become the code. */
function joinCodes(name: string, root: TomlTable): Problem[] {
  const paths: PropertyKey[][] = [['rules']];
  for (const list of ['override', 'policy']) {
    const entries = nodeAt(root, [list]);
    if (entries?.kind !== 'list') continue;
    for (const index of entries.items.keys()) paths.push([list, index, 'rules']);
  }
  const problems: Problem[] = [];
  for (const path of paths) {
    const table = nodeAt(root, path);
    if (table?.kind !== 'table') continue;
    for (const [check, words] of table.entries) {
      if (words.kind !== 'table' || words.entries.size === 0) continue;
      if (['action', 'shadow', 'text'].some((key) => words.entries.has(key))) continue;
      table.entries.delete(check);
      for (const [word, node] of words.entries) {
        const code = `${check}.${word}`;
        if (table.entries.has(code)) {
          const [wrong, remedy] = ['this rule is here twice', 'remove one of the two'];
          problems.push({ file: name, position: node.keyAt, key: keyPath([...path, code]), wrong, remedy });
        }
        table.entries.set(code, node);
      }
    }
  }
  return problems;
}

interface Values {
  /** Without the values that are wrong, which have their defaults; null: not even so. */
  readonly file: ConfigFile | null;
  readonly problems: readonly IssueProblem[];
}

function readValues(name: string, root: TomlTable, checks: readonly CheckDefinition[]): Values {
  const schema = checks === CHECKS ? configSchema : schemaFor(checks);
  const first = schema.safeParse(plain(root));
  if (first.success) return { file: first.data, problems: [] };
  const problems = readIssues(name, root, schema, first.error.issues);
  // Read again without what is wrong, so that the rest is judged as well.
  for (const { path } of problems) remove(root, path);
  const second = schema.safeParse(plain(root));
  return { file: second.success ? second.data : null, problems };
}

/** Takes away one key, with the whole list when it is an entry of one. */
function remove(root: TomlTable, path: readonly PropertyKey[]): void {
  for (let length = path.length; length > 0; length -= 1) {
    const parent = nodeAt(root, path.slice(0, length - 1));
    if (parent?.kind !== 'table') continue;
    parent.entries.delete(String(path[length - 1]));
    return;
  }
}

/** Relative to the file's folder; without a word of the file, the folder that systemd made (StateDirectory=). */
function stateFolder(file: ConfigFile, root: TomlTable, folder: string): string {
  const given = nodeAt(root, ['state', 'folder']) !== undefined;
  const [fromSystemd = ''] = given ? [] : (process.env['STATE_DIRECTORY'] ?? '').split(':');
  return resolve(folder, fromSystemd === '' ? file.state.folder : fromSystemd);
}

function bindChecks(
  file: ConfigFile,
  root: TomlTable,
  checks: readonly CheckDefinition[],
): readonly AnyBoundCheck[] {
  return checks.flatMap((check) => {
    const table = check.partOf ?? check.name;
    const read: unknown = file.checks[table];
    if (!isEnabled(read)) return [];
    // A check reads its options itself, from what the operator wrote: what the schema made of them is not their form any more.
    const written = nodeAt(root, ['checks', table]);
    const options: Record<string, unknown> = {};
    if (written?.kind === 'table') {
      for (const [key, node] of written.entries) {
        if (Object.hasOwn(check.options, key)) options[key] = plain(node);
      }
    }
    return [Object.freeze(check.bind(options, read.deadline))];
  });
}

/** policyd's view of the checks, by policy_context. */
function policyViews(
  file: ConfigFile,
  checks: readonly CheckDefinition[],
  bound: readonly AnyBoundCheck[],
): ReadonlyMap<string, PolicyView> {
  const views = new Map<string, PolicyView>();
  views.set('', { context: '', checks: bound, policy: mergePolicy(file, checks, bound), direction: null });
  for (const entry of file.policy) {
    const { checks: wanted, direction = null } = entry;
    const made =
      wanted === undefined ? bound : bound.filter(({ name, partOf }) => wanted.includes(partOf ?? name));
    const policy = mergePolicy(file, checks, bound, entry);
    for (const context of entry.contexts) {
      views.set(context, Object.freeze({ context, checks: made, policy, direction }));
    }
  }
  return views;
}

/** Several findings about one place say the same thing; the first is enough. */
function withoutRepeats(problems: readonly Problem[]): Problem[] {
  const seen = new Set<string>();
  return inFileOrder(problems).filter(({ position, key }) => {
    const place = `${position?.line}:${position?.column}:${key}`;
    if (position !== null && seen.has(place)) return false;
    seen.add(place);
    return true;
  });
}

/** Plain objects and lists, all the way down, those in maps too; keys and checks are values of their own. */
function frozen<T>(value: T): T {
  if (typeof value !== 'object' || value === null || Object.isFrozen(value)) return value;
  if (value instanceof Map) for (const inner of value.values()) frozen(inner);
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype !== Object.prototype && prototype !== Array.prototype && prototype !== null) return value;
  Object.freeze(value);
  for (const inner of Object.values(value)) frozen(inner);
  return value;
}
