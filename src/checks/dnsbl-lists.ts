import { z } from 'zod';

import type { ListProbe, WatchedList } from '../ports/list-health.ts';
import {
  matchesCode,
  parseCode,
  parseWeighedCode,
  WEIGHT_LIMIT,
  type CodePattern,
  type WeighedCode,
} from './dnsbl-codes.ts';
import { addressLabels, isAddressSubject, SUBJECTS, type ListSubject } from './dnsbl-names.ts';

/** Lists that are asked for one message at most; each may be about several subjects. */
export const LISTS_LIMIT = 32;

const NAME_FORM = 'expected a short name: letters, digits, "-", "_" and ".", at most 40';
const ZONE_FORM = 'expected the domain of a list such as "zen.spamhaus.org"';
const CODE_FORM =
  'expected an answer such as "127.0.0.2", "127.0.0.2-11", "127.0.*.3" or "127.0.0.&8" (the bit 8 is set)';
const WEIGHED_FORM = `${CODE_FORM}, with points after it when they differ: "127.0.0.4 2.5"`;
const DOMAIN =
  /^(?=.{1,200}$)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/i;
const LABELS_FORM = 'expected what stands in front of the zone, such as "2.0.0.127" or "test"';

const weight = z.number().min(-WEIGHT_LIMIT).max(WEIGHT_LIMIT).meta({ title: 'number of points' });

/** One list. Without transformations: what the schema has read may be read again. */
export const blockList = z.strictObject({
  name: z
    .string(NAME_FORM)
    .regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,39}$/, NAME_FORM)
    .describe('What it is called in findings, refusals and metrics.')
    .meta({ examples: ['zen'] }),
  zone: z
    .string(ZONE_FORM)
    .regex(DOMAIN, ZONE_FORM)
    .describe('Its domain in the DNS.')
    .meta({ title: 'domain name', examples: ['zen.spamhaus.org'] }),
  subjects: z
    .array(z.enum(SUBJECTS))
    .min(1)
    .default(['client'])
    .describe(
      'What it is asked about. A list of addresses: "client" (IPv4 and IPv6), or only "client-ipv4" or "client-ipv6". A list of domains: "helo", "sender" (the domain of the envelope sender) and "ptr" (the verified name of the client). The whole name is asked for, not its registered domain.',
    )
    .meta({ title: 'list of subjects' }),
  weight: weight
    .default(1)
    .describe(
      'Points for being listed. Below 0: a welcome list. The weightiest answer counts, and once for each list.',
    ),
  codes: z
    .array(z.string(WEIGHED_FORM).refine((text) => parseWeighedCode(text) !== null, WEIGHED_FORM))
    .max(64)
    .default([])
    .describe(
      'Answers that count, "127.0.0.2-11"; each octet a number, a range, "*" or "&N" (the bits of N are set). Points that differ from weight stand behind it: "127.0.0.10-11 0.5". The first one that an answer matches counts.',
    )
    .meta({
      title: 'list of answers',
      examples: [['127.0.0.2-9', '127.0.0.10-11 0.5']],
      defaultText: 'all of 127.0.0.0/8',
    }),
  blocked: z
    .array(z.string(CODE_FORM).refine((text) => parseCode(text) !== null, CODE_FORM))
    .max(64)
    .default(['127.255.255.*', '127.0.0.1', '127.0.0.255'])
    .describe(
      'Answers by which the list says that it does not serve our name server (Spamhaus, URIBL and DNSWL in this order). They never count as being listed, nor does any answer outside of 127.0.0.0/8.',
    )
    .meta({ title: 'list of answers' }),
  probe: z
    .boolean()
    .default(true)
    .describe(
      'Whether the list is believed only while its test entries are right (RFC 5782): 127.0.0.2 or TEST is listed, 127.0.0.1 or INVALID is not. false: for a list that has none.',
    ),
  test_listed: z
    .string(LABELS_FORM)
    .regex(DOMAIN, LABELS_FORM)
    .optional()
    .describe('What the list has as its test entry, when it is not that of RFC 5782.')
    .meta({
      title: 'name',
      examples: ['dbltest.com'],
      defaultText: '"2.0.0.127" (IPv6: that of ::ffff:127.0.0.2) or "test"',
    }),
  test_unlisted: z
    .string(LABELS_FORM)
    .regex(DOMAIN, LABELS_FORM)
    .optional()
    .describe('What the list can not have.')
    .meta({
      title: 'name',
      examples: ['example.com'],
      defaultText: '"1.0.0.127" (IPv6: that of ::ffff:127.0.0.1) or "invalid"',
    }),
});

export type BlockListOptions = z.output<typeof blockList>;

/** `[[checks.dnsbl.list]]` */
export const blockLists = z
  .array(blockList)
  .max(LISTS_LIMIT)
  .superRefine((lists, context) => {
    const names = new Set<string>();
    for (const [index, { name, subjects }] of lists.entries()) {
      if (names.has(name)) {
        context.addIssue({
          code: 'custom',
          message: 'expected a name of its own for each list',
          path: [index, 'name'],
        });
      }
      names.add(name);
      if (new Set(subjects.map(isAddressSubject)).size > 1) {
        const message =
          'expected either addresses or domains: "client" does not go with "helo", "sender" and "ptr"';
        context.addIssue({ code: 'custom', message, path: [index, 'subjects'] });
      }
    }
  });

/** A list, ready to be asked. */
export interface BlockList extends WatchedList {
  readonly subjects: readonly ListSubject[];
  /** Points for these answers; null: they do not count. */
  weigh(address: string): number | null;
}

// RFC 5782 §5; for IPv6 ::ffff:127.0.0.2 and ::ffff:127.0.0.1.
const TESTS = {
  ipv4: { listed: '2.0.0.127', unlisted: '1.0.0.127' },
  ipv6: {
    listed: addressLabels([0, 0, 0, 0, 0, 0xffff, 0x7f00, 2]),
    unlisted: addressLabels([0, 0, 0, 0, 0, 0xffff, 0x7f00, 1]),
  },
  domain: { listed: 'test', unlisted: 'invalid' },
} as const;

export function compileList(options: BlockListOptions): BlockList {
  const zone = options.zone.toLowerCase();
  const codes = options.codes.map(parseWeighedCode).filter((code): code is WeighedCode => code !== null);
  const blocked = options.blocked.map(parseCode).filter((code): code is CodePattern => code !== null);
  return {
    name: options.name,
    zone,
    subjects: [...new Set(options.subjects)],
    probes: options.probe ? probesOf(options, zone) : [],
    blocked: (address) => {
      const octets = octetsOf(address);
      return blocked.some((pattern) => matchesCode(pattern, octets));
    },
    weigh: (address) => {
      if (codes.length === 0) return options.weight;
      const octets = octetsOf(address);
      const code = codes.find(({ pattern }) => matchesCode(pattern, octets));
      return code === undefined ? null : (code.weight ?? options.weight);
    },
  };
}

function probesOf(options: BlockListOptions, zone: string): readonly ListProbe[] {
  const { subjects } = options;
  const first = subjects.every((subject) => subject === 'client-ipv6')
    ? TESTS.ipv6
    : subjects.every(isAddressSubject)
      ? TESTS.ipv4
      : TESTS.domain;
  const listed = options.test_listed?.toLowerCase() ?? first.listed;
  const unlisted = options.test_unlisted?.toLowerCase() ?? first.unlisted;
  const probes = [
    { name: `${listed}.${zone}`, listed: true },
    { name: `${unlisted}.${zone}`, listed: false },
  ];
  // Most lists know no IPv6 and need not; but one that has every IPv6 address must not be asked about any.
  if (subjects.includes('client') && options.test_unlisted === undefined)
    probes.push({ name: `${TESTS.ipv6.unlisted}.${zone}`, listed: false });
  return probes;
}

function octetsOf(address: string): readonly number[] {
  return address.split('.').map(Number);
}
