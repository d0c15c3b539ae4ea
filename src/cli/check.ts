import { systemServers } from '../adapters/dns.ts';
import { openKeyFiles } from '../adapters/key-files.ts';
import type { KeyFile } from '../adapters/key-file.ts';
import type { Config } from '../config/config.ts';
import { formatProblem } from '../config/errors.ts';
import { readSigningKey } from '../config/keys.ts';
import { formatSocketAddress } from '../config/values.ts';
import { EXIT, parseOptions, UsageError } from './arguments.ts';
import { systemClock } from './clock.ts';
import { readConfig } from './config-file.ts';
import { optionsOf } from './open-keys.ts';
import { publicResolverNotes } from './public-resolvers.ts';
import type { SigningKey } from '../ports/signing-keys.ts';

/** `postern check [--config FILE]` */
export async function check(args: readonly string[]): Promise<number> {
  const { positionals, values } = parseOptions('check', args, ['config']);
  const [surplus] = positionals;
  if (surplus !== undefined) throw new UsageError(`"${surplus}" is not expected here`, 'check');
  const loaded = await readConfig(values['config'] ?? null);
  if (loaded === null) return EXIT.config;
  const { folder, files, why } = await keysOf(loaded.config);
  const faults = [
    ...loaded.faults.map(formatProblem),
    ...(why === null ? [] : [`signing.folder: ${why}`]),
    // What is wrong with those that the file lists is among the faults already, with its line.
    ...files.flatMap(({ place, state }) =>
      state.kind === 'broken' && folder !== null && place.path.startsWith(folder)
        ? [`signing.folder: ${state.why}`]
        : [],
    ),
  ];
  const found = faults.length === 0 ? 'in order' : `${faults.length} of the signing keys can't be used`;
  process.stdout.write(`${loaded.source}: ${found}\n${summary(loaded.config, files)}`);
  const { dns } = loaded.config.file;
  const servers = dns.servers.length > 0 ? dns.servers : await systemServers();
  for (const note of [...loaded.notes, ...publicResolverNotes(loaded.config.file, servers)])
    process.stdout.write(`note: ${note}\n`);
  for (const fault of faults) process.stderr.write(`${fault}\n`);
  return faults.length === 0 ? EXIT.ok : EXIT.config;
}

/** The keys as the milter would have them. */
async function keysOf(config: Config): Promise<{
  readonly folder: string | null;
  readonly files: readonly KeyFile[];
  /** Why the folder can't be read; null: it can, or there is none. */
  readonly why: string | null;
}> {
  const { folder } = config.signing;
  try {
    using keys = await openKeyFiles(optionsOf(config), readSigningKey, systemClock, SILENT);
    return { folder, files: keys.files, why: null };
  } catch (error) {
    return { folder, files: [], why: error instanceof Error ? error.message : String(error) };
  }
}

const SILENT = { loaded() {}, broken() {}, gone() {}, folderFailed() {} };

/** What a configuration sets up, for people. */
function summary(config: Config, files: readonly KeyFile[]): string {
  const { file, checks, policy } = config;
  const keys = files.flatMap(({ state }) => (state.kind === 'usable' ? [keyText(state.key)] : []));
  const upstream = file['lmtp-filter'].upstream.map(formatSocketAddress).join(', ');
  const rows: [string, string][] = [
    ['host name', file.site.hostname],
    ['policyd', formatSocketAddress(file.policyd.listen)],
    ['milter', formatSocketAddress(file.milter.listen)],
    ['lmtp-filter', `${formatSocketAddress(file['lmtp-filter'].listen)}, delivers to ${upstream}`],
    ['admin', formatSocketAddress(file.admin.listen)],
    ['state', file.state.folder],
    scannerRow(file),
    ['name servers', file.dns.servers.map(formatSocketAddress).join(', ') || 'those of /etc/resolv.conf'],
    ['checks', names(checks)],
    ['of policyd', names(config.views.get('')?.checks.filter(isOfPolicyd) ?? [])],
    ['signing', listed([...keys, ...keySources(config)]) || 'no keys: outgoing mail is not signed'],
    ['sealing', config.sealing === null ? 'no ARC seals' : `ARC, as ${config.sealing.domain}`],
    ['overrides', policy.overrides.size === 0 ? 'none' : `for ${policy.overrides.size} domains and users`],
  ];
  return rows.map(([name, text]) => `  ${name.padEnd(13)} ${text}\n`).join('');
}

/** Those that go on with the work of another bear no name of their own. */
function names(checks: Config['checks']): string {
  const own = checks.filter(({ partOf }) => partOf === undefined).map(({ name }) => name);
  return own.join(', ') || 'none';
}

function isOfPolicyd({ stage }: Config['checks'][number]): boolean {
  return stage !== 'message';
}

function scannerRow({ spamd, rspamd }: Config['file']): [string, string] {
  const [name, { address, enabled }] = rspamd.enabled
    ? (['rspamd', rspamd] as const)
    : (['spamd', spamd] as const);
  return [name, `${address.map(formatSocketAddress).join(', ')}, ${SPAMD_USE[String(enabled)] ?? ''}`];
}

const SPAMD_USE: Readonly<Record<string, string>> = {
  auto: 'used when it answers',
  true: 'always used',
  false: 'not used',
};

/** Where keys are looked up when mail comes; they are not asked here. */
function keySources({ file: { directory, signing, state } }: Config): readonly string[] {
  const { sql, ldap } = directory;
  const at = signing.redis.address ?? state.redis.address;
  const { redis } = signing;
  return [
    ...((sql.signing_key ?? []).length > 0 ? ['keys in [directory.sql]'] : []),
    ...((ldap.signing_key ?? []).length > 0 ? ['keys in [directory.ldap]'] : []),
    ...(redis.enabled ? [`keys in Redis${at === null ? '' : ` at ${formatSocketAddress(at)}`}`] : []),
  ];
}

/** The summary stays a page, however many keys there are. */
const KEYS_SHOWN = 10;

function listed(keys: readonly string[]): string {
  const more = keys.length - KEYS_SHOWN;
  return `${keys.slice(0, KEYS_SHOWN).join(', ')}${more > 0 ? `, and ${more} more` : ''}`;
}

function keyText({ domain, selector, subdomains, algorithm, key }: SigningKey): string {
  const bits = key.asymmetricKeyDetails?.modulusLength;
  const kind = algorithm === 'rsa-sha256' ? `RSA ${bits ?? '?'} bits` : 'Ed25519';
  return `${domain}${subdomains ? ' with subdomains' : ''} (selector ${selector}, ${kind})`;
}
