import { systemServers } from '../adapters/dns.ts';
import type { Config, SigningKey } from '../config/config.ts';
import { formatSocketAddress } from '../config/values.ts';
import { EXIT, parseOptions, UsageError } from './arguments.ts';
import { readConfig } from './config-file.ts';
import { publicResolverNotes } from './public-resolvers.ts';

/** `postern check [--config FILE]` */
export async function check(args: readonly string[]): Promise<number> {
  const { positionals, values } = parseOptions('check', args, ['config']);
  const [surplus] = positionals;
  if (surplus !== undefined) throw new UsageError(`"${surplus}" is not expected here`, 'check');
  const loaded = await readConfig(values['config'] ?? null);
  if (loaded === null) return EXIT.config;
  process.stdout.write(`${loaded.source}: in order\n${summary(loaded.config)}`);
  const { dns } = loaded.config.file;
  const servers = dns.servers.length > 0 ? dns.servers : await systemServers();
  for (const note of [...loaded.notes, ...publicResolverNotes(loaded.config.file, servers)])
    process.stdout.write(`note: ${note}\n`);
  return EXIT.ok;
}

/** What a configuration sets up, for people. */
function summary(config: Config): string {
  const { file, checks, signing, policy } = config;
  const upstream = formatSocketAddress(file['lmtp-filter'].upstream);
  const rows: [string, string][] = [
    ['host name', file.site.hostname],
    ['policyd', formatSocketAddress(file.policyd.listen)],
    ['milter', formatSocketAddress(file.milter.listen)],
    ['lmtp-filter', `${formatSocketAddress(file['lmtp-filter'].listen)}, delivers to ${upstream}`],
    ['admin', formatSocketAddress(file.admin.listen)],
    ['state', file.state.folder],
    ['spamd', `${formatSocketAddress(file.spamd.address)}, ${SPAMD_USE[String(file.spamd.enabled)] ?? ''}`],
    ['name servers', file.dns.servers.map(formatSocketAddress).join(', ') || 'those of /etc/resolv.conf'],
    ['checks', checks.map(({ name }) => name).join(', ') || 'none'],
    ['signing', signing.keys.map(keyText).join(', ') || 'no keys: outgoing mail is not signed'],
    ['overrides', policy.overrides.size === 0 ? 'none' : `for ${policy.overrides.size} domains and users`],
  ];
  return rows.map(([name, text]) => `  ${name.padEnd(13)} ${text}\n`).join('');
}

const SPAMD_USE: Readonly<Record<string, string>> = {
  auto: 'used when it answers',
  true: 'always used',
  false: 'not used',
};

function keyText({ domain, selector, subdomains, algorithm, key }: SigningKey): string {
  const bits = key.asymmetricKeyDetails?.modulusLength;
  const kind = algorithm === 'rsa-sha256' ? `RSA ${bits ?? '?'} bits` : 'Ed25519';
  return `${domain}${subdomains ? ' with subdomains' : ''} (selector ${selector}, ${kind})`;
}
