import { resolve } from 'node:path';

import { z } from 'zod';

import { duration } from '../checks/options.ts';
import { shown } from './errors.ts';
import { readSmallFile } from './files.ts';
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

export interface UpstreamMistake {
  readonly key: keyof typeof upstreamKeys;
  readonly wrong: string;
  readonly remedy: string;
}

const LARGEST_CA_FILE = 1024 ** 2;

/** Whether a connection to this address is to be encrypted, by `upstream_tls`. */
export function usesTls(address: SocketAddress, wanted: UpstreamSettings['upstream_tls']): boolean {
  if (address.kind === 'unix' || wanted === 'never') return false;
  return wanted === 'always' || !isLoopback(address.host);
}

function isLoopback(host: string): boolean {
  return host === '::1' || /^127\.\d+\.\d+\.\d+$/.test(host) || /^(?:.+\.)?localhost$/i.test(host);
}

/** Reads the file of certificates, and says what does not go together. @param folder that its name is relative to */
export async function readUpstreamFiles(
  settings: UpstreamSettings,
  folder: string,
): Promise<{ readonly tls: UpstreamTls; readonly mistakes: readonly UpstreamMistake[] }> {
  const { upstream, upstream_tls, upstream_ca_file } = settings;
  const mistakes: UpstreamMistake[] = [];
  const names = upstream.map(formatSocketAddress);
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice !== undefined) {
    mistakes.push({
      key: 'upstream',
      wrong: `${shown(twice)} is named twice`,
      remedy: 'expected each Dovecot once',
    });
  }
  if (upstream_ca_file === null) return { tls: { ca: null }, mistakes };
  if (!upstream.some((address) => usesTls(address, upstream_tls))) {
    const remedy = 'leave it out, or set upstream_tls = "always"';
    mistakes.push({ key: 'upstream_ca_file', wrong: 'certificates for connections without TLS', remedy });
    return { tls: { ca: null }, mistakes };
  }
  const path = resolve(folder, upstream_ca_file);
  const reading = await readSmallFile(path, LARGEST_CA_FILE);
  if (!reading.ok) {
    const wrong = `${shown(path)} can't be used: ${reading.detail}`;
    mistakes.push({ key: 'upstream_ca_file', wrong, remedy: 'expected the path of a PEM file' });
    return { tls: { ca: null }, mistakes };
  }
  const ca = reading.octets.toString('latin1');
  if (!ca.includes('-----BEGIN CERTIFICATE-----')) {
    mistakes.push({
      key: 'upstream_ca_file',
      wrong: `${shown(path)} holds no certificate`,
      remedy: 'expected PEM',
    });
  }
  return { tls: { ca }, mistakes };
}
