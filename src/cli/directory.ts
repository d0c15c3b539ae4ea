import { Registry } from 'prom-client';

import { sizeText } from '../checks/quota-room.ts';
import type { Config } from '../config/config.ts';
import { lowerAscii, parseMailbox } from '../mail/address.ts';
import { printable } from '../mail/reply.ts';
import type { Account, Destination } from '../ports/directory.ts';
import { openLog } from '../runtime/telemetry.ts';
import { EXIT, readArguments, UsageError } from './arguments.ts';
import { systemClock } from './clock.ts';
import { readConfig } from './config-file.ts';
import { openSiteDirectory } from './open-directory.ts';

const HELP = `Usage: postern directory ADDRESS [--json] [--config FILE]

Says where mail for an address goes, and what is set for it as a login or mailbox, as [directory] and [[account]] have
it now. Asks every source anew; changes nothing.

  --json   one JSON object

Exit status: 0, also when the address is unknown; 64 wrong use, 78 configuration not usable, 1 anything else.
`;

/** The longest the sources may take altogether. */
const PATIENCE_MS = 10_000;
const SHOWN = 320;

interface DirectoryReport {
  readonly address: string;
  /** Whether the domain is one of ours. */
  readonly local: boolean;
  readonly destination: Destination;
  readonly account: Account;
}

/** `postern directory` */
export async function directory(args: readonly string[]): Promise<number> {
  if (args.includes('--help') || args.includes('-h')) {
    process.stdout.write(HELP);
    return EXIT.ok;
  }
  const { address, json, config } = parse(args);
  const loaded = await readConfig(config);
  if (loaded === null) return EXIT.config;
  const report = await look(loaded.config, address);
  process.stdout.write(json ? `${asJson(report)}\n` : `${describe(report).join('\n')}\n`);
  return EXIT.ok;
}

function parse(args: readonly string[]): { address: string; json: boolean; config: string | null } {
  const parsed = readArguments('directory', args, { json: { type: 'boolean' }, config: { type: 'string' } });
  const [address = '', ...surplus] = parsed.positionals;
  if (address === '' || surplus.length > 0)
    throw new UsageError('expected one address or login', 'directory');
  const { json = false, config = null } = parsed.values;
  // Addresses are one character for each octet, as the envelope has them.
  return { address: Buffer.from(address, 'utf8').toString('latin1'), json, config };
}

async function look(config: Config, address: string): Promise<DirectoryReport> {
  using site = await openSiteDirectory(config, systemClock, openLog('silent'), new Registry());
  const signal = AbortSignal.timeout(PATIENCE_MS);
  const mailbox = parseMailbox(address);
  return {
    address,
    local: mailbox.domain !== '' && (await site.isLocalDomain(mailbox.domain, signal)),
    destination: await site.destination(mailbox, signal),
    account: await site.account(lowerAscii(address), signal),
  };
}

function asJson({ account, ...report }: DirectoryReport): string {
  return JSON.stringify({ ...report, account: { ...account, limits: Object.fromEntries(account.limits) } });
}

/** For people. */
function describe({ address, local, destination, account }: DirectoryReport): readonly string[] {
  const { quota, limits, senders, thresholds = {}, allow = [], block = [], signingKeys = [] } = account;
  const { domainLists = {}, subjectTag, language = '', rewriteBody } = account;
  const bands = Object.entries(thresholds).map(([band, score]) => `${band} ${score ?? 'never'}`);
  const rows: readonly (readonly [string, string])[] = [
    ['domain', local ? 'ours' : 'not ours'],
    ['mail goes to', goesTo(destination)],
    ['quota', quota === undefined ? '' : quota === null ? 'no limit' : sizeText(quota)],
    ['limits', Array.from(limits, ([name, most]) => `${name} ${most}`).join(', ')],
    ['may send as', senders.join(', ')],
    ['score bands', bands.join(', ')],
    ['subject tag', tagText(subjectTag)],
    ['language', language],
    ['spam report', rewriteBody === undefined ? '' : rewriteBody ? 'in place of spam' : 'never'],
    ['wants', allow.join(', ')],
    ['does not want', block.join(', ')],
    ['domain wants', (domainLists.allow ?? []).join(', ')],
    ['domain blocks', (domainLists.block ?? []).join(', ')],
    ['signing keys', signingKeys.join(', ')],
  ];
  const said = rows.filter(([, text]) => text !== '');
  return [
    printable(address, SHOWN),
    ...said.map(([name, text]) => `  ${name.padEnd(13)}  ${printable(text, 20 * SHOWN)}`),
  ];
}

function tagText(tag: Account['subjectTag']): string {
  if (tag === undefined) return '';
  if (typeof tag === 'boolean') return tag ? "the site's" : 'none';
  return tag;
}

function goesTo(destination: Destination): string {
  switch (destination.kind) {
    case 'unknown':
      return 'nobody of ours';
    case 'delivered': {
      const elsewhere = destination.elsewhere ? ['other hosts'] : [];
      return [...destination.mailboxes, ...elsewhere].join(', ');
    }
  }
}
