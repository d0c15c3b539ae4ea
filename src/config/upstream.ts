import { z } from 'zod';

import { duration } from '../checks/options.ts';
import { shown } from './errors.ts';
import type { NamedFiles } from './named-files.ts';
import {
  domain,
  filePath,
  formatSocketAddress,
  socketAddresses,
  waitingTime,
  type SocketAddress,
} from './values.ts';

/** More Dovecots than any site of one mail host has. */
const UPSTREAM_LIMIT = 64;
const LONGEST_FULL_WAIT = 30 * 86_400_000;

/** How mail that is junk comes into the junk folder. */
export const FILINGS = ['header', 'detail', 'folder'] as const;

export type Filing = (typeof FILINGS)[number];

/** The keys of `[lmtp-filter]` that say where and how mail is delivered. */
export const upstreamKeys = {
  upstream: socketAddresses(UPSTREAM_LIMIT)
    .prefault('unix:/run/dovecot/lmtp')
    .describe(
      "Dovecot's LMTP listener, where mail is delivered to; or a list of several, which have the same mailboxes: each mailbox is always delivered to by the same one.",
    )
    .meta({ title: 'socket address or list of them' }),
  upstream_tls: z
    .enum(['remote', 'always', 'never'])
    .default('remote')
    .describe(
      "Which of them must offer STARTTLS and prove who they are: those on other hosts, or also those on a TCP port of this one. Mail waits in Postfix's queue where that fails.",
    ),
  upstream_tls_name: domain()
    .nullable()
    .default(null)
    .describe('Name that their certificates are for.')
    .meta({ examples: ['dovecot.example.org'], defaultText: 'the host in upstream' }),
  upstream_ca_file: filePath()
    .nullable()
    .default(null)
    .describe('File with the certificates that sign theirs, PEM.')
    .meta({ examples: ['dovecot-ca.pem'], defaultText: 'those that Node.js trusts' }),
  upstream_timeout: waitingTime().prefault('120s').describe('The longest Dovecot may take for one reply.'),
  filing: z
    .enum(FILINGS)
    .default('header')
    .describe(
      'How junk comes into the junk folder ([feedback] junk). "header": whoever reads the fields files it, such as the Sieve script that "postern wire dovecot" prints. "detail" and "folder": it is delivered to USER+Junk, for Sieve to see or for Dovecot to file without Sieve.',
    ),
  full_mailbox_wait: duration()
    .refine((ms) => ms <= LONGEST_FULL_WAIT, 'expected at most "30d"')
    .meta({ title: 'duration' })
    .prefault('1d')
    .describe(
      'How long mail for a mailbox that became full after the mail was accepted is tried again, from the first try on; then its sender gets a bounce. "0s": at once, if Dovecot refuses for good.',
    ),
};

export interface UpstreamTls {
  /** PEM; null: what Node.js trusts. */
  readonly ca: string | null;
}

interface UpstreamSettings {
  readonly upstream: readonly SocketAddress[];
  readonly upstream_tls: 'remote' | 'always' | 'never';
  readonly upstream_ca_file: string | null;
}

/** Whether a connection to this address is to be encrypted, by `upstream_tls`. */
export function usesTls(address: SocketAddress, wanted: UpstreamSettings['upstream_tls']): boolean {
  if (address.kind === 'unix' || wanted === 'never') return false;
  return wanted === 'always' || !isLoopback(address.host);
}

function isLoopback(host: string): boolean {
  return host === '::1' || /^127\.\d+\.\d+\.\d+$/.test(host) || /^(?:.+\.)?localhost$/i.test(host);
}

/** Reads the file of certificates, and says what does not go together. */
export async function readUpstreamFiles(settings: UpstreamSettings, files: NamedFiles): Promise<UpstreamTls> {
  const { upstream, upstream_tls, upstream_ca_file } = settings;
  const names = upstream.map(formatSocketAddress);
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice !== undefined) {
    files.say(['lmtp-filter', 'upstream'], `${shown(twice)} is named twice`, 'expected each Dovecot once');
  }
  const place = ['lmtp-filter', 'upstream_ca_file'];
  if (upstream_ca_file !== null && !upstream.some((address) => usesTls(address, upstream_tls))) {
    const remedy = 'leave it out, or set upstream_tls = "always"';
    files.say(place, 'certificates for connections without TLS', remedy);
    return { ca: null };
  }
  return { ca: await files.certificates(place, upstream_ca_file, true) };
}
