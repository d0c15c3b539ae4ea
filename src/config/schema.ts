import { hostname } from 'node:os';

import { z } from 'zod';

import { CHECKS } from '../checks/index.ts';
import { byteSize, duration } from '../checks/options.ts';
import { networkSet, rule, socketAddress } from './values.ts';

/**
 * The whole configuration file. This is the manual as well: `docs/configuration.md` and `examples/postern.toml` are generated from
 * the descriptions and defaults here. Every key has both.
 */

const DOMAIN =
  /^(?=.{1,253}$)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/i;

function domain(): z.ZodString {
  return z.string().regex(DOMAIN, 'expected a domain name such as "example.org"');
}

const mode = z
  .string()
  .regex(/^0[0-7]{3}$/, 'expected octal permissions such as "0660"')
  .transform((text) => Number.parseInt(text, 8))
  .default(0o660)
  .describe('Permissions of the socket, when it is a unix socket.');

const group = z
  .string()
  .min(1)
  .nullable()
  .default(null)
  .describe('Group that owns the socket, when it is a unix socket, such as "postfix".');

/** The address a daemon listens on, with its default. */
function listen(defaultAddress: string): z.ZodPrefault<ReturnType<typeof socketAddress>> {
  return socketAddress()
    .prefault(defaultAddress)
    .describe('Where this listens: "host:port" or "unix:/path".');
}

const threshold = z
  .union([z.number(), z.literal(false)], 'expected a number of points, or false to switch this band off')
  .transform((value) => (value === false ? null : value));

const thresholds = z.strictObject({
  tag: threshold
    .prefault(5)
    .describe('From this score on a message is marked as spam: X-Spam-Flag and the subject tag.'),
  junk: threshold.prefault(false).describe('From this score on a message is filed as junk.'),
  reject: threshold.prefault(false).describe('From this score on a message is refused.'),
});

const ruleTable = z.record(z.string(), rule());

const override = z.strictObject({
  recipients: z
    .array(z.string().regex(/^[^@\s]*@[^@\s]+$/, 'expected "user@domain" or "@domain"'))
    .min(1)
    .describe('Whom this is for: "user@domain", or "@domain" for all users of a domain.'),
  thresholds: thresholds
    .partial()
    .optional()
    .describe('Score bands that differ from those of the site or the domain.'),
  rules: ruleTable.optional().describe('Rules that differ from those of the site or the domain.'),
  subject_tag: z.string().max(60).optional().describe('Subject tag that differs; "" for none.'),
});

const signingKey = z.strictObject({
  domain: domain().describe(
    'Signing domain (d=). Mail whose From is in this domain is signed with this key.',
  ),
  selector: domain().describe('Selector (s=): the key is published at SELECTOR._domainkey.DOMAIN.'),
  file: z
    .string()
    .min(1)
    .describe('Private key, PEM: RSA (2048 bits or more) or Ed25519. Must not be readable by others.'),
  subdomains: z
    .boolean()
    .default(false)
    .describe('Whether mail from subdomains is signed with this key too.'),
});

function checkTables(): z.ZodRawShape {
  const shape: Record<string, z.ZodType> = {};
  for (const check of CHECKS) {
    shape[check.name] = z
      .strictObject({
        enabled: z.boolean().default(true).describe('Whether this check is made.'),
        deadline: duration()
          .prefault(check.deadline)
          .describe('The longest it may take; then it counts as unavailable.'),
        ...check.options,
      })
      .prefault({})
      .describe(check.summary);
  }
  return shape;
}

export const configSchema = z.strictObject({
  site: z
    .strictObject({
      hostname: domain()
        .default(() => hostname())
        .describe('Name of this host, as it stands in trace fields and banners.'),
      authserv_id: domain()
        .optional()
        .describe('Name in Authentication-Results; the same on all hosts of a site. Default: the host name.'),
      own_networks: networkSet()
        .prefault(['127.0.0.0/8', '::1/128'])
        .describe('Clients whose mail is outgoing: signed, and not checked as mail from outside.'),
      recipient_delimiter: z
        .string()
        .max(1)
        .default('+')
        .describe("Postfix's recipient_delimiter: what stands between a user name and its extension."),
    })
    .prefault({})
    .describe('What holds for all daemons.'),
  state: z
    .strictObject({
      folder: z
        .string()
        .min(1)
        .default('./postern-state')
        .describe('Folder of the SQLite store and of spool files; made when missing.'),
      history_age: duration().prefault('30d').describe('Decisions older than this are removed.'),
    })
    .prefault({})
    .describe('What is kept between messages.'),
  policyd: z
    .strictObject({
      listen: listen('127.0.0.1:10040'),
      mode,
      group,
      deadline: duration()
        .prefault('8s')
        .describe('The longest a request may wait for its answer; Postfix itself waits 100 s.'),
      max_connections: z
        .int()
        .min(1)
        .max(100_000)
        .default(2000)
        .describe('Connections at once; more are closed at once.'),
      spf_header: z
        .enum(['received-spf', 'authentication-results', 'none'])
        .default('received-spf')
        .describe('What is put in front of a message that passes (PREPEND), once per message.'),
    })
    .prefault({})
    .describe("The policy server: answers Postfix's check_policy_service."),
  milter: z
    .strictObject({
      listen: listen('127.0.0.1:8891'),
      mode,
      group,
      deadline: duration()
        .prefault('100s')
        .describe('The longest the end of a message may wait for its verdict; Postfix waits 300 s.'),
      max_connections: z
        .int()
        .min(1)
        .max(100_000)
        .default(2000)
        .describe('Connections at once; more are closed at once.'),
      max_message_size: byteSize()
        .prefault('100MiB')
        .describe('A message with a larger body is refused with 552.'),
      memory_per_message: byteSize()
        .prefault('1MiB')
        .describe('Bodies up to this size stay in memory, larger ones go to a spool file.'),
    })
    .prefault({})
    .describe('The milter: verifies and scores incoming mail, signs outgoing mail.'),
  'lmtp-filter': z
    .strictObject({
      listen: listen('127.0.0.1:10024'),
      mode,
      group,
      upstream: socketAddress()
        .prefault('unix:/run/dovecot/lmtp')
        .describe("Dovecot's LMTP listener, where mail is delivered to."),
      deadline: duration()
        .prefault('100s')
        .describe('The longest a message may wait for its checks after the final dot.'),
      upstream_timeout: duration().prefault('120s').describe('The longest Dovecot may take for one reply.'),
      max_connections: z
        .int()
        .min(1)
        .max(100_000)
        .default(500)
        .describe('Connections at once; more are told 421.'),
      max_message_size: byteSize().prefault('100MiB').describe('A larger message is refused with 552.'),
      memory_per_message: byteSize()
        .prefault('1MiB')
        .describe('Messages up to this size stay in memory, larger ones go to a spool file.'),
    })
    .prefault({})
    .describe('The LMTP filter: stands between Postfix and Dovecot and decides for each recipient.'),
  admin: z
    .strictObject({
      listen: listen('127.0.0.1:8899'),
      mode,
      group,
    })
    .prefault({})
    .describe('Metrics and health over HTTP: /metrics, /healthz, /readyz.'),
  log: z
    .strictObject({
      level: z
        .enum(['debug', 'info', 'warn', 'error'])
        .default('info')
        .describe('The least severe lines that are written.'),
    })
    .prefault({})
    .describe('The log: JSON lines on standard output.'),
  dns: z
    .strictObject({
      servers: z
        .array(socketAddress())
        .default([])
        .describe('Name servers as "address:port". Default: those of /etc/resolv.conf.'),
      timeout: duration()
        .prefault('2s')
        .describe('The longest one query to one server may take; then the next one is asked.'),
      cache_entries: z
        .int()
        .min(0)
        .max(10_000_000)
        .default(20_000)
        .describe('Answers kept in memory, each for its TTL.'),
    })
    .prefault({})
    .describe('How names are resolved.'),
  checks: z.strictObject(checkTables()).prefault({}).describe('What is looked at.'),
  rules: ruleTable
    .prefault({})
    .describe(
      'What is done about each finding: "ignore", "score N", "tag", "junk", "quarantine", "defer", "reject" or "discard"; or { action = …, shadow = true, text = "…" }.',
    ),
  unavailable: ruleTable
    .prefault({})
    .describe('What is done when a check could not be made, by name of the check.'),
  thresholds: thresholds.prefault({}).describe('Score bands: what is done from which spam score on.'),
  subject_tag: z
    .string()
    .max(60)
    .default('[SPAM]')
    .describe('Put in front of the subject of mail that is marked as spam; "" for none.'),
  override: z
    .array(override)
    .default([])
    .describe('Settings of single domains and users; user before domain before site.'),
  signing: z
    .strictObject({
      canonicalization: z
        .enum(['relaxed/relaxed', 'relaxed/simple', 'simple/relaxed', 'simple/simple'])
        .default('relaxed/relaxed')
        .describe('How header and body are prepared for the signature (c=).'),
      oversign: z
        .array(z.string())
        .default([
          'From',
          'To',
          'Cc',
          'Subject',
          'Date',
          'Reply-To',
          'Message-ID',
          'MIME-Version',
          'Content-Type',
        ])
        .describe('Fields signed once more than they occur, so that none can be added later.'),
      expire: duration()
        .optional()
        .describe('How long a signature is valid (x=), such as "14d". Default: no limit.'),
      key: z
        .array(signingKey)
        .default([])
        .describe('Keys. Several keys of one domain give several signatures.'),
    })
    .prefault({})
    .describe('DKIM signatures on outgoing mail.'),
});

/** The file as the schema has read it, before keys are loaded and rules are merged. */
export type ConfigFile = z.output<typeof configSchema>;
