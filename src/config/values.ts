import ipaddr from 'ipaddr.js';
import { z } from 'zod';

import { isIpAddress } from '../checks/networks.ts';
import { byteSize, duration } from '../checks/options.ts';
import type { Action, Rule } from '../verdict/rules.ts';

/**
 * Value types of the configuration. Each reads what an operator writes, gives what the code uses, and says in its message what it
 * expected; `title` is its name in the manual.
 */

/** Where a daemon listens, or a neighbour answers. */
export type SocketAddress =
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number }
  | { readonly kind: 'unix'; readonly path: string };

// RFC 1035 §2.3.4: 63 octets a label, 253 characters a name. Underscores occur in selectors and host names.
const DOMAIN =
  /^(?=.{1,253}$)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/i;

export function isDomainName(text: string): boolean {
  return DOMAIN.test(text);
}

const ADDRESS_FORM = 'expected "host:port" (IPv6 in brackets: "[::1]:25") or "unix:/absolute/path"';

/** `"127.0.0.1:8891"`, `"[::1]:8891"`, `"localhost:24"`, `"unix:/run/postern/milter"`. */
export function socketAddress(): z.ZodType<SocketAddress, string> {
  return z
    .string(ADDRESS_FORM)
    .transform((text, context): SocketAddress => {
      const address = parseSocketAddress(text);
      if (address !== null) return address;
      context.addIssue({ code: 'custom', message: mistakenAddress(text) });
      return z.NEVER;
    })
    .meta({ title: 'socket address' });
}

/** One socket address, or a list of them. */
export function socketAddresses(most: number): z.ZodType<readonly SocketAddress[], string | string[]> {
  const form = `${ADDRESS_FORM}, or a list of 1 to ${most} of them`;
  return z
    .union([z.string(), z.array(z.string()).min(1).max(most)], form)
    .transform((given, context): readonly SocketAddress[] => {
      const addresses: SocketAddress[] = [];
      for (const text of typeof given === 'string' ? [given] : given) {
        const address = parseSocketAddress(text);
        if (address !== null) addresses.push(address);
        else context.addIssue({ code: 'custom', message: mistakenAddress(text) });
      }
      return addresses;
    })
    .meta({ title: 'socket address or list of them' });
}

export function parseSocketAddress(text: string): SocketAddress | null {
  if (text.startsWith('unix:')) {
    const path = text.slice('unix:'.length);
    // 107: the longest path, in octets, that fits sun_path (108 with its NUL).
    return path.startsWith('/') && Buffer.byteLength(path) <= 107 ? { kind: 'unix', path } : null;
  }
  const match = /^(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9.-]+)):(\d{1,5})$/.exec(text);
  if (match === null) return null;
  const [, bracketed, name, digits] = match;
  const port = Number(digits);
  if (port > 65_535) return null;
  if (bracketed !== undefined) {
    return ipaddr.IPv6.isValid(bracketed) ? { kind: 'tcp', host: bracketed, port } : null;
  }
  // A name of digits and dots is an IPv4 address, or a mistyped one.
  const host = name ?? '';
  if (/^[\d.]+$/.test(host) ? !isIpAddress(host) : !DOMAIN.test(host)) return null;
  return { kind: 'tcp', host, port };
}

function mistakenAddress(text: string): string {
  const meant = meantAddress(text);
  return meant === null ? ADDRESS_FORM : `${ADDRESS_FORM}: write "${meant}"`;
}

/** The same address as we write it, when the text is one in the words of Postfix, libmilter or spamd. */
function meantAddress(text: string): string | null {
  const candidates = [
    text.replace(/^inet6?:(\d+)@(.+)$/, '$2:$1'), // libmilter, OpenDKIM
    text.replace(/^inet6?:/, ''), // Postfix
    text.replace(/^(?:local:|unix:)?(?=\/)/, 'unix:'),
    text.replace(/^([0-9a-f:]*:[0-9a-f:]*):(\d{1,5})$/i, '[$1]:$2'),
    text.replace(/^:?(\d{1,5})$/, '127.0.0.1:$1'),
  ];
  return candidates.find((candidate) => candidate !== text && parseSocketAddress(candidate) !== null) ?? null;
}

/** An address that other machines or programs can reach a TCP port by. */
type TcpAddress = Extract<SocketAddress, { kind: 'tcp' }>;

const NAME_SERVER_FORM =
  'expected the IP address of a name server, such as "192.0.2.53", "192.0.2.53:5353" or "[2001:db8::53]:53"';

/** `"192.0.2.53"`, `"127.0.0.1:5353"`, `"2001:db8::53"`, `"[2001:db8::53]:53"`; port 53 unless another is given. */
export function nameServer(): z.ZodType<TcpAddress, string> {
  return z
    .string(NAME_SERVER_FORM)
    .transform((text, context): TcpAddress => {
      if (isIpAddress(text)) return { kind: 'tcp', host: text, port: 53 };
      const address = parseSocketAddress(text);
      if (address?.kind === 'tcp' && address.port > 0 && isIpAddress(address.host)) return address;
      context.addIssue({ code: 'custom', message: NAME_SERVER_FORM });
      return z.NEVER;
    })
    .meta({ title: 'name server' });
}

/** As the configuration writes it. */
export function formatSocketAddress(address: SocketAddress): string {
  switch (address.kind) {
    case 'unix':
      return `unix:${address.path}`;
    case 'tcp':
      return address.host.includes(':')
        ? `[${address.host}]:${address.port}`
        : `${address.host}:${address.port}`;
  }
}

export const ACTION_WORDS = [
  'ignore',
  'tag',
  'junk',
  'quarantine',
  'defer',
  'reject',
  'discard',
  'allow',
] as const satisfies readonly Action['kind'][];
const ACTION_FORM = `expected one of ${ACTION_WORDS.map((word) => `"${word}"`).join(', ')}, or "score N" with a number N`;
// A message's score is a sum of these; bounded so that sums stay exact to three decimals.
const SCORE = /^score (-?\d{1,6}(?:\.\d{1,3})?)$/;

function action(): z.ZodType<Action, string> {
  return z.string(ACTION_FORM).transform((text, context): Action => {
    const score = SCORE.exec(text);
    if (score !== null) return { kind: 'score', points: Number(score[1]) };
    const word = ACTION_WORDS.find((known) => known === text);
    if (word !== undefined) return { kind: word };
    context.addIssue({ code: 'custom', message: ACTION_FORM, params: { known: ACTION_WORDS } });
    return z.NEVER;
  });
}

/** `"reject"`, or `{ action = "reject", shadow = true, text = "…" }`. */
export function rule(): z.ZodType<
  Rule,
  string | { action: string; shadow?: boolean | undefined; text?: string | undefined }
> {
  const long = z
    .strictObject({
      action: action(),
      shadow: z.boolean().default(false),
      text: z
        .string(TEXT_FORM)
        .regex(/^[\x20-\x7e]{1,200}$/, TEXT_FORM)
        .optional(),
    })
    .transform(({ action: act, shadow, text }): Rule => {
      const mode = shadow ? 'shadow' : 'enforce';
      return text === undefined ? { action: act, mode } : { action: act, mode, text };
    });
  const short = action().transform((act): Rule => ({ action: act, mode: 'enforce' }));
  return z.union([short, long]).meta({ title: 'rule' });
}

const TEXT_FORM = 'expected 1 to 200 printable ASCII characters on one line';

const DOMAIN_FORM = 'expected a domain name such as "example.org"';

export function domain(): z.ZodString {
  return z.string(DOMAIN_FORM).regex(DOMAIN, DOMAIN_FORM).meta({ title: 'domain name' });
}

/** Printable ASCII: what may stand in a header field or a reply as it is. */
export function printable(shortest: number, longest: number): z.ZodString {
  const length = shortest === 0 ? `at most ${longest}` : `${shortest} to ${longest}`;
  const form = `expected ${length} printable ASCII character${longest === 1 ? '' : 's'}`;
  return z
    .string(form)
    .regex(new RegExp(`^[\\x20-\\x7e]{${shortest},${longest}}$`), form)
    .meta({ title: 'text' });
}

const PATH_FORM = 'expected the path of a file or folder';

/** A path, absolute or from the folder of the configuration file. */
export function filePath(): z.ZodString {
  // PATH_MAX of Linux is 4096 with its NUL.
  return z.string(PATH_FORM).min(1, PATH_FORM).max(4095, PATH_FORM).meta({ title: 'path' });
}

const MODE_FORM = 'expected octal permissions in quotes such as "0660"';

/** `"0660"` → 0o660. */
export function permissions(): z.ZodType<number, string> {
  return z
    .string(MODE_FORM)
    .regex(/^0[0-7]{3}$/, MODE_FORM)
    .transform((text) => Number.parseInt(text, 8))
    .meta({ title: 'permissions' });
}

const FIELD_FORM = 'expected the name of a header field such as "Subject"';

/** RFC 5322 §3.6.8: printable ASCII without the colon. */
export function fieldName(): z.ZodString {
  return z
    .string(FIELD_FORM)
    .regex(/^[!-9;-~]{1,76}$/, FIELD_FORM)
    .meta({ title: 'field name' });
}

const MAILBOX_FORM = 'expected "user@domain" or "@domain"';

/** Whom an override is for. */
export function mailboxOrDomain(): z.ZodType<string, string> {
  return z
    .string(MAILBOX_FORM)
    .refine((text) => {
      const at = text.lastIndexOf('@');
      return at !== -1 && !/\s/.test(text) && DOMAIN.test(text.slice(at + 1).replace(/\.$/, ''));
    }, MAILBOX_FORM)
    .meta({ title: 'mailbox or @domain' });
}

const LONGEST_WAIT = 3_600_000;

/** How long something is waited for. Above 0; far below the 2^31 ms at which a timer of Node's fires at once. */
export function waitingTime(): z.ZodType<number, string> {
  return duration()
    .refine((ms) => ms > 0 && ms <= LONGEST_WAIT, 'expected a duration above "0s" and of at most "1h"')
    .meta({ title: 'duration' });
}

/** A size in octets within limits. */
export function sizeBetween(least: number, most: number): z.ZodType<number, string> {
  return byteSize()
    .refine(
      (octets) => octets >= least && octets <= most,
      `expected a size from "${sizeText(least)}" to "${sizeText(most)}"`,
    )
    .meta({ title: 'size' });
}

function sizeText(octets: number): string {
  if (octets >= 1024 ** 3) return `${octets / 1024 ** 3}GiB`;
  if (octets >= 1024 ** 2) return `${octets / 1024 ** 2}MiB`;
  return octets >= 1024 ? `${octets / 1024}KiB` : `${octets}B`;
}
