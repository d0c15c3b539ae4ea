import type { RedisHealth, ServerHealth } from '../adapters/redis-check.ts';
import { checkFile, type FileHealth } from '../adapters/sqlite-check.ts';
import { databasePath, STORE_SCHEMA, type DatabaseSchema } from '../adapters/sqlite-schema.ts';
import { STATE_SCHEMA } from '../adapters/sqlite-state-schema.ts';
import { sizeText } from '../checks/quota-room.ts';
import type { Config } from '../config/config.ts';
import { NeighbourError } from '../ports/neighbour-error.ts';
import { ENTRY_KINDS } from '../ports/state-entries.ts';
import { causes } from './causes.ts';
import { KIND_WORDS } from './store-copy.ts';
import { usedEnd } from './store-ends.ts';

/** What was found of one store. */
type Health =
  | {
      readonly kind: 'sqlite';
      readonly store: 'state' | 'history';
      readonly file: FileHealth;
      readonly current: number;
    }
  /** Nothing was written yet. */
  | { readonly kind: 'none'; readonly store: 'state' | 'history'; readonly path: string }
  | { readonly kind: 'redis'; readonly where: string; readonly redis: RedisHealth }
  /** It can't be reached. */
  | { readonly kind: 'away'; readonly where: string; readonly why: string };

/** Looks at every store that the configuration uses. */
export async function storeHealth(config: Config): Promise<readonly Health[]> {
  const end = usedEnd(config);
  if (end.kind === 'sqlite') {
    return [fileHealth('state', end.folder, STATE_SCHEMA), fileHealth('history', end.folder, STORE_SCHEMA)];
  }
  const { checkRedis } = await import('../adapters/redis-check.ts');
  try {
    return [{ kind: 'redis', where: end.words, redis: await checkRedis(end.options) }];
  } catch (error) {
    if (!(error instanceof NeighbourError)) throw error;
    return [{ kind: 'away', where: end.words, why: causes(error) }];
  }
}

function fileHealth(store: 'state' | 'history', folder: string, schema: DatabaseSchema): Health {
  const file = checkFile(folder, schema);
  if (file === null) return { kind: 'none', store, path: databasePath(folder, schema) };
  return { kind: 'sqlite', store, file, current: schema.migrations.length };
}

/** What is wrong, each in a line. */
export function faultsOf(health: Health): readonly string[] {
  switch (health.kind) {
    case 'none':
      return [];
    case 'sqlite':
      return health.file.faults;
    case 'away':
      return [health.why];
    case 'redis':
      return health.redis.servers.flatMap((server) => server.faults.map((fault) => ofServer(server, fault)));
  }
}

/** What works, and had better be otherwise. */
function warningsOf(health: Health): readonly string[] {
  switch (health.kind) {
    case 'none':
    case 'away':
      return [];
    case 'sqlite':
      return (health.file.mode & 0o077) === 0
        ? []
        : [`others than its owner may open it (mode 0${health.file.mode.toString(8)}); chmod 600`];
    case 'redis':
      return health.redis.servers.flatMap((server) => server.warnings.map((each) => ofServer(server, each)));
  }
}

function ofServer({ name }: ServerHealth, text: string): string {
  return name === '' ? text : `${name}: ${text}`;
}

/** Lines for people. */
export function describeHealth(health: Health): string[] {
  const faults = faultsOf(health);
  const notes = [
    ...faults.map((fault) => `  wrong: ${fault}`),
    ...warningsOf(health).map((warning) => `  warning: ${warning}`),
  ];
  const verdict = faults.length === 0 ? 'in order' : 'NOT in order';
  switch (health.kind) {
    case 'none':
      return [`${health.path}: not there yet; the daemons make it`];
    case 'away':
      return [`${health.where}: NOT in order`, ...notes];
    case 'sqlite':
      return [`${health.file.path}: ${verdict}`, ...notes, ...fileLines(health.file, health.current)];
    case 'redis':
      return [`${health.where}: ${verdict}`, ...notes, ...redisLines(health.redis)];
  }
}

/** One object for each store. */
export function healthJson(health: Health): object {
  const common = {
    ok: faultsOf(health).length === 0,
    faults: faultsOf(health),
    warnings: warningsOf(health),
  };
  switch (health.kind) {
    case 'none':
      return { store: health.store, kind: 'sqlite', path: health.path, there: false, ...common };
    case 'away':
      return { store: 'state', kind: 'redis', where: health.where, there: false, ...common };
    case 'sqlite': {
      const { path, contents } = health.file;
      return { store: health.store, kind: 'sqlite', path, there: true, ...common, ...contents };
    }
    case 'redis': {
      const { pingMs, servers, keys, partly } = health.redis;
      return {
        store: 'state',
        kind: 'redis',
        where: health.where,
        there: true,
        ...common,
        ping_ms: Math.round(pingMs * 10) / 10,
        servers,
        keys,
        keys_partly: partly,
      };
    }
  }
}

/** Tables, in words; those without are told as parts of others. */
const TABLE_WORDS: Readonly<Record<string, string>> = {
  counter: KIND_WORDS.counter,
  triplet: KIND_WORDS.triplet,
  client: KIND_WORDS.network,
  correspondent: KIND_WORDS.correspondent,
  reservation: KIND_WORDS.reservation,
  full_mailbox: KIND_WORDS['full-mailbox'],
  sighting: KIND_WORDS.sighting,
  tally: 'counts of hours of accounts',
  standing: KIND_WORDS.standing,
  decision: 'decisions',
  label: 'labels',
  trace: 'traces',
  facts: 'facts of messages under way',
};

function fileLines({ contents }: FileHealth, current: number): string[] {
  if (contents === null) return [];
  const { version, octets, freeOctets, logOctets, rows } = contents;
  const lines: [string, string][] = [
    ['schema', version === current ? `${version}` : `${version} of ${current}`],
    ['size', `${sizeText(octets)}, ${sizeText(freeOctets)} of it free; log ${sizeText(logOctets)}`],
  ];
  for (const [table, words] of Object.entries(TABLE_WORDS)) {
    const count = rows[table];
    if (count !== undefined) lines.push([words, `${count}`]);
  }
  return aligned(lines);
}

function redisLines({ pingMs, servers, keys, partly }: RedisHealth): string[] {
  const lines: [string, string][] = [['answers in', `${pingMs.toFixed(1)} ms`]];
  for (const server of servers) {
    const { name, version, role, replicas, usedOctets, mostOctets, policy, appendOnly, save } = server;
    const most = mostOctets === 0 ? 'no limit' : `of ${sizeText(mostOctets)}`;
    if (name !== '') lines.push(['node', name]);
    lines.push(
      ['version', version],
      ['role', `${role}, with ${replicas} ${replicas === 1 ? 'replica' : 'replicas'}`],
      ['memory', `${sizeText(usedOctets)}, ${most}, ${policy}`],
      ['on the disk', `appendonly ${appendOnly ? 'yes' : 'no'}, save ${saveText(save)}`],
    );
  }
  const least = partly ? 'at least ' : '';
  for (const kind of ENTRY_KINDS) {
    const words = KEY_WORDS[kind] ?? KIND_WORDS[kind];
    if (keys[kind] !== undefined) lines.push([words, `${least}${keys[kind]}`]);
  }
  if (keys.other !== undefined) lines.push(['other keys of Postern', `${least}${keys.other}`]);
  return aligned(lines);
}

/** Where a key holds many entries. */
const KEY_WORDS: Readonly<Partial<Record<(typeof ENTRY_KINDS)[number], string>>> = {
  reservation: 'mailboxes with quota reservations',
  sighting: 'sets of values seen with accounts',
  standing: 'keys with standings of accounts',
};

function saveText(save: string | null): string {
  if (save === null) return 'not known (this user may not ask)';
  return save === '' ? 'never' : `"${save}"`;
}

function aligned(lines: readonly (readonly [string, string])[]): string[] {
  const width = Math.max(...lines.map(([name]) => name.length));
  return lines.map(([name, text]) => `  ${name.padEnd(width)}  ${text}`);
}
