import ipaddr from 'ipaddr.js';
import { z } from 'zod';

import type { Action, Rule } from '../verdict/rules.ts';

/** Where a daemon listens, or a neighbour answers. */
export type SocketAddress =
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number }
  | { readonly kind: 'unix'; readonly path: string };

/** A socket of ours: with the permissions of its path, when it is a unix socket. */
export interface ListenAddress {
  readonly address: SocketAddress;
  /** Permission bits of the path, such as 0o660. */
  readonly mode: number;
  /** Group name or number that shall own the path; null: the process's own. */
  readonly group: string | null;
}

/** A set of IP networks. */
export interface NetworkSet {
  has(address: string): boolean;
  readonly text: readonly string[];
}

const ADDRESS_FORM = 'expected "host:port" (IPv6 in brackets: "[::1]:25") or "unix:/absolute/path"';

/** `"127.0.0.1:8891"`, `"[::1]:8891"`, `"localhost:24"`, `"unix:/run/postern/milter"`. */
export function socketAddress(): z.ZodType<SocketAddress, string> {
  return z.string().transform((text, context): SocketAddress => {
    const address = parseSocketAddress(text);
    if (address !== null) return address;
    context.addIssue({ code: 'custom', message: ADDRESS_FORM });
    return z.NEVER;
  });
}

export function parseSocketAddress(text: string): SocketAddress | null {
  if (text.startsWith('unix:')) {
    const path = text.slice('unix:'.length);
    // 107: the longest path that fits sun_path (108 with its NUL).
    return path.startsWith('/') && path.length <= 107 ? { kind: 'unix', path } : null;
  }
  const match = /^(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9.-]+)):(\d{1,5})$/.exec(text);
  if (match === null) return null;
  const port = Number(match[3]);
  return port > 65_535 ? null : { kind: 'tcp', host: match[1] ?? match[2] ?? '', port };
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

/** A list of addresses and CIDR networks, IPv4 and IPv6. */
export function networkSet(): z.ZodType<NetworkSet, string[]> {
  return z.array(z.string()).transform((list, context): NetworkSet => {
    const ranges: [ipaddr.IPv4 | ipaddr.IPv6, number][] = [];
    list.forEach((text, index) => {
      const range = parseNetwork(text);
      if (range === null) {
        const message = 'expected an IP address or a network such as "192.0.2.0/24" or "2001:db8::/32"';
        context.addIssue({ code: 'custom', message, path: [index] });
      } else {
        ranges.push(range);
      }
    });
    return { text: list, has: (address) => contains(ranges, address) };
  });
}

function parseNetwork(text: string): [ipaddr.IPv4 | ipaddr.IPv6, number] | null {
  try {
    if (text.includes('/')) return ipaddr.parseCIDR(text);
    const address = ipaddr.parse(text);
    return [address, address.kind() === 'ipv4' ? 32 : 128];
  } catch {
    return null; // what ipaddr.js can't read is no network; the caller says so with its place
  }
}

function contains(ranges: readonly [ipaddr.IPv4 | ipaddr.IPv6, number][], text: string): boolean {
  if (!ipaddr.isValid(text)) return false;
  const address = ipaddr.process(text); // IPv4-mapped IPv6 becomes IPv4
  return ranges.some(([network, bits]) => network.kind() === address.kind() && address.match(network, bits));
}

const ACTION_WORDS = ['ignore', 'tag', 'junk', 'quarantine', 'defer', 'reject', 'discard'] as const;
const ACTION_FORM = `expected one of ${ACTION_WORDS.map((word) => `"${word}"`).join(', ')}, or "score N" with a number N`;
const SCORE = /^score (-?\d+(?:\.\d{1,3})?)$/;

function action(): z.ZodType<Action, string> {
  return z.string().transform((text, context): Action => {
    const score = SCORE.exec(text);
    if (score !== null) return { kind: 'score', points: Number(score[1]) };
    const word = ACTION_WORDS.find((known) => known === text);
    if (word !== undefined) return { kind: word };
    context.addIssue({ code: 'custom', message: ACTION_FORM });
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
        .string()
        .regex(/^[\x20-\x7e]{1,200}$/, 'expected 1 to 200 printable ASCII characters on one line')
        .optional(),
    })
    .transform(({ action: act, shadow, text }): Rule => {
      const mode = shadow ? 'shadow' : 'enforce';
      return text === undefined ? { action: act, mode } : { action: act, mode, text };
    });
  const short = action().transform((act): Rule => ({ action: act, mode: 'enforce' }));
  return z.union([short, long]);
}
