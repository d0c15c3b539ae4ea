import { Registry } from 'prom-client';
import { z } from 'zod';

import { quotaCode } from '../checks/quota-finding.ts';
import { isSpared, type QuotaOptions } from '../checks/quota.ts';
import { isLimited, obstacle, OVERHEAD, sizeText, type Obstacle } from '../checks/quota-room.ts';
import { byteSize } from '../checks/options.ts';
import type { Config } from '../config/config.ts';
import { parseMailbox, type Address } from '../mail/address.ts';
import { printable, replyLine } from '../mail/reply.ts';
import { NeighbourError } from '../ports/neighbour-error.ts';
import type { MailboxUsage, QuotaSource, Reservation } from '../ports/quota.ts';
import type { State } from '../ports/state.ts';
import { openLog } from '../runtime/telemetry.ts';
import { decide } from '../verdict/decide.ts';
import { rulesFor } from '../verdict/rules.ts';
import { EXIT, readArguments, UsageError } from './arguments.ts';
import { systemClock } from './clock.ts';
import { readConfig } from './config-file.ts';
import { openSiteDirectory } from './open-directory.ts';
import { openSiteQuota } from './open-quota.ts';
import { openState } from './open-state.ts';

const HELP = `Usage: postern quota ADDRESS [--size SIZE] [--json] [--config FILE]

Says how full the mailboxes of an address are, what is on its way there, and what policyd would answer to a message
now. An alias is followed as Postfix does. Holds no room and changes nothing.

  --size SIZE    of the message, as its sender announces it: "800B", "10MiB"; 100KiB without it
  --json         one JSON object

Exit status: 0, also when the mailbox is full; 64 wrong use, 78 configuration not usable, 1 anything else.
`;

const USUAL_SIZE = 100 * 1024;
/** The longest Dovecot may take to answer. */
const PATIENCE_MS = 10_000;
const LISTED = 20;

interface QuotaArguments {
  readonly address: Address;
  readonly size: number;
  readonly json: boolean;
  readonly config: string | null;
}

/** What is known of one mailbox. */
export interface MailboxReport {
  readonly mailbox: string;
  /** null: Dovecot knows no such user, or does not know how full it is. */
  readonly usage: MailboxUsage | null;
  readonly inFlight: readonly Reservation[];
  /** Since when it has been full, milliseconds since 1970; null: it is not. */
  readonly fullSince: number | null;
  /** Why it does not take a message of the size; null: it does. */
  readonly obstacle: Obstacle | null;
}

export interface QuotaReport {
  readonly address: string;
  readonly size: number;
  readonly mailboxes: readonly MailboxReport[];
  /** Some of its mail leaves for other hosts. */
  readonly elsewhere: boolean;
  /** Finding code; null: there is room. */
  readonly code: string | null;
  /** As Postfix gives it to the sender. */
  readonly answer: string;
}

/** `postern quota` */
export async function quota(args: readonly string[]): Promise<number> {
  if (args.includes('--help') || args.includes('-h')) {
    process.stdout.write(HELP);
    return EXIT.ok;
  }
  const wanted = parseQuota(args);
  const loaded = await readConfig(wanted.config);
  if (loaded === null) return EXIT.config;
  try {
    const report = await look(loaded.config, wanted);
    process.stdout.write(
      wanted.json ? `${JSON.stringify(report)}\n` : `${describeQuota(report, Date.now()).join('\n')}\n`,
    );
    return EXIT.ok;
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    process.stderr.write(`postern: ${reasonOf(error)}\n`);
    return EXIT.failed;
  }
}

function parseQuota(args: readonly string[]): QuotaArguments {
  const parsed = readArguments('quota', args, {
    size: { type: 'string' },
    json: { type: 'boolean' },
    config: { type: 'string' },
  });
  const [address = '', ...surplus] = parsed.positionals;
  if (address === '' || surplus.length > 0) throw new UsageError('expected one address', 'quota');
  const { size, json = false, config = null } = parsed.values;
  const octets =
    size === undefined ? { success: true as const, data: USUAL_SIZE } : byteSize().safeParse(size);
  if (!octets.success) {
    throw new UsageError(
      `--size ${printable(size ?? '', 40)}: ${octets.error.issues[0]?.message ?? ''}`,
      'quota',
    );
  }
  // Addresses are one character for each octet, as the envelope has them.
  const written = Buffer.from(address, 'utf8').toString('latin1');
  return { address: parseMailbox(written), size: octets.data, json, config };
}

async function look(config: Config, wanted: QuotaArguments): Promise<QuotaReport> {
  await using opened = new AsyncDisposableStack();
  const log = openLog('silent');
  const telemetry = { log, registry: new Registry() };
  const { directory } = opened.use(await openSiteDirectory(config, systemClock, log, telemetry.registry));
  const { source } = opened.use(await openSiteQuota(config, directory, systemClock, telemetry));
  if (source === null) {
    throw new Error('nobody is named who could tell: see [dovecot] doveadm and [dovecot.quota_clone]');
  }
  const state = opened.use(await openState(config));
  const signal = AbortSignal.timeout(PATIENCE_MS);
  const destination = await directory.destination(wanted.address, signal);
  if (destination.kind === 'unknown') {
    throw new Error(
      `${printable(wanted.address.raw, 320)} leads to no mailbox of ours: see [directory] mailbox_domains, mailboxes and aliases`,
    );
  }
  return await reportOf(config, wanted, destination, source, state, signal);
}

async function reportOf(
  config: Config,
  { address, size }: QuotaArguments,
  { mailboxes, elsewhere }: { readonly mailboxes: readonly string[]; readonly elsewhere: boolean },
  source: QuotaSource,
  state: State,
  signal: AbortSignal,
): Promise<QuotaReport> {
  const reports: MailboxReport[] = [];
  for (const mailbox of mailboxes) {
    const usage = await source.usage(mailbox, signal);
    const inFlight = await state.reservations(mailbox);
    const onItsWay = inFlight.reduce((sum, { bytes }) => sum + bytes, 0);
    const why = usage !== null && isLimited(usage) ? obstacle(usage, onItsWay, size + OVERHEAD) : null;
    const fullSince = why === 'full' ? await lookFullSince(mailbox, state) : null;
    reports.push({ mailbox, usage, inFlight, fullSince, obstacle: why });
  }
  const code = isSpared(address) ? null : codeOf(reports, elsewhere, config);
  return {
    address: address.raw,
    size,
    mailboxes: reports,
    elsewhere,
    code,
    answer: answerOf(code, address, config),
  };
}

/** What policyd would know, without making it known: to look at a mailbox does not make it full for longer. */
async function lookFullSince(mailbox: string, state: State): Promise<number | null> {
  const asked = systemClock.now();
  const since = await state.noteFull(mailbox, true);
  if (since !== null && since >= asked) await state.noteFull(mailbox, false);
  return since;
}

/** What `[checks.quota]` came to. */
const READ = z.looseObject({ temporary_for: z.number(), alias_room: z.enum(['one', 'all']) });

function optionsOf(table: unknown): Pick<QuotaOptions, 'temporary_for' | 'alias_room'> {
  return READ.parse(table);
}

/** null: it is taken. */
function codeOf(reports: readonly MailboxReport[], elsewhere: boolean, { file }: Config): string | null {
  const { temporary_for: temporaryFor, alias_room: room } = optionsOf(file.checks['quota']);
  const without = reports.filter((report) => report.obstacle !== null);
  const taken = room === 'all' ? without.length === 0 : elsewhere || without.length < reports.length;
  if (taken) return null;
  const refusals = without.map(({ obstacle: why, fullSince: since }) => ({ obstacle: why, since }));
  return quotaCode(refusals, systemClock.now() - temporaryFor);
}

function answerOf(code: string | null, address: Address, { policy }: Config): string {
  if (code === null) return 'accepted, as far as quota is concerned';
  const finding = { code, detail: '' };
  const verdict = decide(
    [{ kind: 'found', check: 'quota', findings: [finding], elapsed: 0 }],
    rulesFor(policy, address),
  );
  switch (verdict.kind) {
    case 'defer':
    case 'reject':
      return replyLine(verdict.reply);
    case 'accept':
      return verdict.shadow.length > 0
        ? `accepted: the rule for ${code} is in shadow`
        : `accepted: the rule for ${code} lets it pass`;
    case 'junk':
    case 'quarantine':
    case 'discard':
      return verdict.kind;
  }
}

/** For people. */
export function describeQuota(report: QuotaReport, now: number): string[] {
  const lines: string[] = [];
  const only = report.mailboxes.length === 1 ? report.mailboxes[0] : undefined;
  const { address } = report;
  if (only === undefined || only.mailbox !== address || report.elsewhere) {
    const targets = [
      ...report.mailboxes.map(({ mailbox }) => mailbox),
      ...(report.elsewhere ? ['other hosts'] : []),
    ];
    lines.push(
      `${printable(address, 320)} leads to ${targets.map((target) => printable(target, 320)).join(', ')}`,
    );
  }
  for (const mailbox of report.mailboxes) lines.push(...describeMailbox(mailbox, now));
  const because = report.code === null ? '' : ` (${report.code})`;
  lines.push('', `A message of ${sizeText(report.size)} now: ${report.answer}${because}`);
  return lines;
}

function describeMailbox({ mailbox, usage, inFlight, fullSince }: MailboxReport, now: number): string[] {
  const lines = [printable(mailbox, 320)];
  const say = (what: string, value: string): number => lines.push(`  ${what.padEnd(12)}${value}`);
  if (usage === null) {
    say('usage', 'unknown: Dovecot knows no such user, or is counting; mail is let pass');
    return lines;
  }
  const { used, limit, grace, source } = usage;
  const share = limit === null || limit === 0 ? '' : ` (${Math.floor((used * 100) / limit)} %)`;
  say('used', `${sizeText(used)}${share}, from ${source}`);
  say(
    'limit',
    limit === null ? 'none' : `${sizeText(limit)}, and ${sizeText(grace)} of grace for the last message`,
  );
  const sum = inFlight.reduce((total, { bytes }) => total + bytes, 0);
  say('on its way', inFlight.length === 0 ? 'nothing' : `${sizeText(sum)} in ${inFlight.length}`);
  for (const { trace, bytes, until } of inFlight.slice(0, LISTED)) {
    const seconds = Math.max(0, Math.round((until - now) / 1000));
    say('', `${trace}  ${sizeText(bytes)}, held for ${seconds} s more`);
  }
  if (inFlight.length > LISTED) say('', `and ${inFlight.length - LISTED} more`);
  if (fullSince !== null) say('full since', new Date(fullSince).toISOString());
  return lines;
}

function reasonOf(error: Error): string {
  const texts: string[] = [];
  for (let link: unknown = error; link instanceof Error && texts.length < 4; link = link.cause)
    texts.push(link.message);
  const text = texts.join(': ');
  return error instanceof NeighbourError ? `Dovecot could not be asked: ${text}` : text;
}
