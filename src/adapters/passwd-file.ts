import { lowerAscii } from '../mail/address.ts';

/** One mailbox of a file: Dovecot's passwd-file, or a plain list. */
export interface MailboxEntry {
  /** Dovecot's user name, in lower case; `@domain` where the list says that every address of a domain is a mailbox. */
  readonly name: string;
  /** Octets; null: no limit; undefined: the line says nothing. */
  readonly quota: number | null | undefined;
}

/** A passwd line has seven colons before its extra fields. */
const EXTRA_FIELDS = 7;

/**
 * The mailboxes of a file, one on each line: `user:password:uid:gid:gecos:home:shell:extra fields` as Dovecot's passwd-file driver has it, or
 * `user` with whatever may follow behind white space, as in the table of Postfix's virtual_mailbox_maps. Passwords are not looked at.
 */
export function* mailboxEntries(text: string): Generator<MailboxEntry> {
  for (let start = 0; start < text.length;) {
    const feed = text.indexOf('\n', start);
    const end = feed === -1 ? text.length : feed;
    const line = text.slice(start, end);
    start = end + 1;
    const name = /^[^\s:#][^\s:]*/.exec(line)?.[0];
    if (name !== undefined) yield { name: lowerAscii(name), quota: quotaOf(line) };
  }
}

function quotaOf(line: string): number | null | undefined {
  let at = 0;
  for (let colons = 0; colons < EXTRA_FIELDS; colons += 1) {
    at = line.indexOf(':', at) + 1;
    if (at === 0) return undefined;
  }
  const fields = new Map<string, string>();
  for (const field of line.slice(at).split(/\s+/)) {
    const [, key = '', value = ''] = /^userdb_([^=]+)=(.*)$/.exec(field) ?? [];
    fields.set(key, value);
  }
  return quotaOfFields(fields);
}

/** The quota that fields of Dovecot's user database say. Octets; null: no limit; undefined: nothing. */
export function quotaOfFields(fields: ReadonlyMap<string, string>): number | null | undefined {
  let quota: number | null | undefined;
  for (const [key, value] of fields) {
    // quota_rule is Dovecot 2.3's, quota_storage_size that of 2.4.
    if (key === 'quota_rule') quota = ruleLimit(value) ?? quota;
    if (key === 'quota_storage_size') quota = sizeOf(value, 1) ?? quota;
    if (quota === 0) quota = null;
  }
  return quota;
}

/** `*:storage=1G:messages=1000`: the limit of all folders together, in octets. Dovecot: quota-util.c quota_rule_parse_limits. */
function ruleLimit(rule: string): number | undefined {
  const [folder, ...limits] = rule.split(':');
  if (folder !== '*') return undefined;
  for (const limit of limits) {
    const [, unit = '', value = ''] = /^(storage|bytes)=(.*)$/.exec(limit) ?? [];
    if (unit !== '') return sizeOf(value, unit === 'storage' ? 1024 : 1);
  }
  return undefined;
}

const SIZE = /^(\d{1,15})([BKMGT]?)(?:i?B)?$/i;
const UNITS: Readonly<Record<string, number>> = {
  B: 1,
  K: 1024,
  M: 1024 ** 2,
  G: 1024 ** 3,
  T: 1024 ** 4,
};

/** Octets; undefined: not a size that says something by itself ("+10M", "10%", "unlimited" aside). 0 is no limit to Dovecot. */
export function sizeOf(text: string, usualUnit: number): number | undefined {
  if (text === 'unlimited') return 0;
  const [, digits, unit = ''] = SIZE.exec(text) ?? [];
  if (digits === undefined) return undefined;
  const octets = Number(digits) * (UNITS[unit.toUpperCase()] ?? usualUnit);
  return Number.isSafeInteger(octets) ? octets : undefined;
}
