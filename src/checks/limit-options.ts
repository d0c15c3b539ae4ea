import { z } from 'zod';

import { selection } from './address-pattern.ts';
import type { CodeInfo } from './check.ts';
import { networkSet } from './networks.ts';
import { byteSize, duration } from './options.ts';

const COUNTED = ['messages', 'recipients', 'bytes', 'connections'] as const;
export const KEY_PARTS = [
  'login',
  'sender',
  'sender-domain',
  'client',
  'client-net',
  'recipient',
  'recipient-domain',
  'all',
] as const;

export type KeyPart = (typeof KEY_PARTS)[number];

const NAME_FORM = 'expected a name of 1 to 40 lower-case letters, digits and hyphens, such as "per-login"';
const MOST_FORM = 'expected a number of at least 1, or for bytes a size such as "500MiB"';
const PERIOD_FORM = 'expected a duration from "1s" to "366d"';
const PER_FORM = `expected a list of different words of ${KEY_PARTS.map((part) => `"${part}"`).join(', ')}; "all" stands alone`;
const TEXT_FORM = 'expected 1 to 200 printable ASCII characters on one line';

/** Sums up to here are exact, in Redis's Lua too. */
const LARGEST = 2 ** 50;
const LONGEST_PERIOD = 366 * 86_400_000;

/** Told from a plain number, which messages are counted in. */
const size = byteSize()
  .refine((octets) => octets >= 1 && octets <= LARGEST)
  .transform((octets) => ({ octets }));

const limit = z
  .strictObject({
    name: z
      .string(NAME_FORM)
      .regex(/^[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?$/, NAME_FORM)
      .describe(
        'Its name: the finding is limits.NAME, and [[account]] tables set other values for single users and domains under it.',
      )
      .meta({ examples: ['per-login'], title: 'name' }),
    of: z
      .enum(COUNTED)
      .default('messages')
      .describe(
        'What is counted. "messages": each once, however many recipients it has. "recipients": each that is accepted. "bytes": the size of the message, once. "connections": each SMTP session that sends mail.',
      ),
    per: z
      .array(z.enum(KEY_PARTS), PER_FORM)
      .min(1, PER_FORM)
      .refine(
        (parts) => new Set(parts).size === parts.length && (parts.length === 1 || !parts.includes('all')),
        PER_FORM,
      )
      .describe(
        'For whom it is counted; several words make one counter for each combination. Mail that has no such value (no login, a bounce without sender) is not counted. "all": one counter for everything.',
      )
      .meta({ examples: [['login']] }),
    most: z
      .union([z.int().min(1).max(LARGEST), size], MOST_FORM)
      .describe('How many may pass within the period: a number, or a size when bytes are counted.')
      .meta({ examples: [100], title: 'number or size' }),
    period: duration()
      .refine((ms) => ms >= 1000 && ms <= LONGEST_PERIOD, PERIOD_FORM)
      .describe('Within which time.')
      .meta({ examples: ['1h'] }),
    algorithm: z
      .enum(['window', 'bucket'])
      .default('window')
      .describe(
        '"window": no more than `most` within any period. "bucket": `most` at once, and room comes back evenly over the period.',
      ),
    direction: z
      .enum(['in', 'out', 'both'])
      .default('both')
      .describe('Which mail is counted: incoming, outgoing (with a login, or from own_networks), or both.'),
    logins: selection()
      .prefault([])
      .describe(
        'Only mail of these logins is counted; "!pattern" takes one out. Empty: with any login and without.',
      )
      .meta({ examples: [['!newsletter@example.org']] }),
    senders: selection()
      .prefault([])
      .describe('The same for envelope senders, which clients outside choose at will.'),
    recipients: selection().prefault([]).describe('The same for recipients.'),
    clients: networkSet().prefault([]).describe('Only mail of these clients is counted. Empty: of all.'),
    not_clients: networkSet().prefault([]).describe('Mail of these clients is not counted.'),
    without_login: z.boolean().default(false).describe('true: only mail without a login is counted.'),
    action: z
      .enum(['defer', 'reject', 'hold', 'warn'])
      .default('defer')
      .describe(
        'What is done with what is too much. "defer": refused for now. "reject": refused for good. "hold": taken and put into Postfix\'s hold queue, for somebody to look at. "warn": nothing but the notice.',
      ),
    shadow: z
      .boolean()
      .default(false)
      .describe('true: counted, decided and recorded, never acted on, and no notice.'),
    text: z
      .string(TEXT_FORM)
      .regex(/^[\x20-\x7e]{1,200}$/, TEXT_FORM)
      .optional()
      .describe('Words for the refusal in place of ours.')
      .meta({
        examples: ['Daily limit reached, see https://example.org/limits'],
        defaultText: 'our own words',
      }),
    notify: z
      .boolean()
      .default(true)
      .describe('Whether a notice is sent at the first excess, to where [notices] says.'),
  })
  .refine(({ of, most }) => of === 'bytes' || typeof most === 'number', { error: MOST_FORM, path: ['most'] })
  .transform(({ most, ...entry }) => ({ ...entry, most: typeof most === 'number' ? most : most.octets }));

/** One limit as the operator set it. */
export type Limit = z.output<typeof limit>;

/** Keys of `[checks.limits]`. */
export const LIMIT_OPTIONS = {
  ipv4_prefix: z
    .int()
    .min(8)
    .max(32)
    .default(24)
    .describe('Length of the network that "client-net" counts an IPv4 client under.')
    .meta({ title: 'number' }),
  ipv6_prefix: z
    .int()
    .min(16)
    .max(128)
    .default(64)
    .describe('Length of the network that "client-net" counts an IPv6 client under.')
    .meta({ title: 'number' }),
  limit: z
    .array(limit)
    .max(100)
    .refine(
      (limits) => new Set(limits.map(({ name }) => name)).size === limits.length,
      'expected different names',
    )
    .default([])
    .describe(
      'A limit. All that fit a message count it; the most severe action of those without room is taken.',
    ),
};

export type LimitOptions = z.output<z.ZodObject<typeof LIMIT_OPTIONS>>;

const RULES = { defer: 'defer', reject: 'reject', hold: 'quarantine', warn: 'ignore' } as const;

/** Its finding, and the name of its counters. */
export function limitCode({ name }: Pick<Limit, 'name'>): string {
  return `limits.${name}`;
}

/** Findings that the operator's limits make. */
export function limitCodes({ limit: limits }: LimitOptions): Readonly<Record<string, CodeInfo>> {
  return Object.fromEntries(
    limits.map((entry) => {
      const { of, most, period, per, action, shadow, text } = entry;
      const meaning = `More than ${most} ${of} within ${periodText(period)}, counted per ${per.join(' and ')}.`;
      return [
        limitCode(entry),
        {
          meaning,
          action: RULES[action],
          shadow,
          ...(text === undefined ? {} : { text }),
        } satisfies CodeInfo,
      ];
    }),
  );
}

const UNITS: readonly (readonly [ms: number, unit: string])[] = [
  [86_400_000, 'd'],
  [3_600_000, 'h'],
  [60_000, 'm'],
  [1000, 's'],
];

/** As the configuration writes it: `1h`. */
export function periodText(ms: number): string {
  const [length, unit] = UNITS.find(([each]) => ms % each === 0) ?? [1, 'ms'];
  return `${ms / length}${unit}`;
}
