import { z } from 'zod';

import type { CheckDefinition } from '../checks/check.ts';
import { CHECKS } from '../checks/index.ts';
import { networkSet } from '../checks/networks.ts';
import { duration } from '../checks/options.ts';
import { fullHostname } from './hostname.ts';
import { accounts, directory } from './directory.ts';
import { clamd } from './clamd.ts';
import { dovecot } from './dovecot.ts';
import { feedback } from './feedback.ts';
import { quarantine } from './quarantine.ts';
import { loginRules } from './logins.ts';
import { noticesTable } from './notices.ts';
import { redis } from './redis.ts';
import { rspamd, spamd } from './scanners.ts';
import { arcTable, signingTable } from './signing.ts';
import { upstreamKeys } from './upstream.ts';
import {
  domain,
  filePath,
  mailboxOrDomain,
  nameServer,
  permissions,
  printable,
  rule,
  sizeBetween,
  socketAddress,
  waitingTime,
} from './values.ts';

/**
 * The whole configuration file. This is the manual as well: `docs/configuration.md` and `examples/postern.toml` are generated from
 * the descriptions, defaults and examples here. Every key has a description, and a default or an example. Defaults are written as
 * an operator writes them (`prefault`), so that the manual can show them.
 */

const MIB = 1024 ** 2;

const mode = permissions().prefault('0660').describe('Permissions of the socket, when it is a unix socket.');

const group = printable(1, 32)
  .nullable()
  .default(null)
  .describe(
    'Group that owns the socket, when it is a unix socket: the one that Postfix or Dovecot runs as, or its number.',
  )
  .meta({ examples: ['postfix'], defaultText: 'the group of this process' });

/** The address a daemon listens on, with its default. */
function listen(defaultAddress: string): z.ZodPrefault<ReturnType<typeof socketAddress>> {
  return socketAddress()
    .prefault(defaultAddress)
    .describe('Where this listens: "host:port" or "unix:/path".');
}

function connections(usual: number, whatElse: string): z.ZodDefault<z.ZodInt> {
  return z
    .int()
    .min(1)
    .max(100_000)
    .default(usual)
    .describe(`Connections at once; ${whatElse}.`)
    .meta({ title: 'number' });
}

const workers = z
  .int()
  .min(0)
  .max(256)
  .default(1)
  .describe(
    'Processes that share the work; 0: one for each processor. More than one pays when a single processor is not enough. Changes with the next start.',
  )
  .meta({ title: 'number' });

const threshold = z
  .union([z.number(), z.literal(false)], 'expected a number of points, or false to switch this band off')
  .transform((value) => (value === false ? null : value))
  .meta({ title: 'points or false' });

const thresholds = z.strictObject({
  tag: threshold
    .prefault(5)
    .describe(
      'From this score on a message is marked as spam: X-Spam-Flag and the subject tag. false: never.',
    ),
  junk: threshold.prefault(false).describe('From this score on a message is filed as junk. false: never.'),
  reject: threshold.prefault(false).describe('From this score on a message is refused. false: never.'),
  discard: threshold
    .prefault(false)
    .describe(
      'From this score on a message is taken and not delivered; only the record knows of it. false: never.',
    ),
  outgoing: z
    .strictObject({
      tag: threshold.optional().describe('As in [thresholds].').meta(outgoing(8)),
      junk: threshold.optional().describe('As in [thresholds].').meta(outgoing(false)),
      reject: threshold.optional().describe('As in [thresholds].').meta(outgoing(12)),
      discard: threshold.optional().describe('As in [thresholds].').meta(outgoing(false)),
    })
    .optional()
    .describe(
      'Score bands of outgoing mail, where they differ. What [[override]] says of a recipient comes on top.',
    ),
});

function outgoing(example: unknown): { examples: unknown[]; defaultText: string } {
  return { examples: [example], defaultText: 'as for incoming mail' };
}

const ruleTable = z.record(z.string(), rule());

const override = z.strictObject({
  recipients: z
    .array(mailboxOrDomain())
    .min(1)
    .describe(
      'Whom this is for: "user@domain", or "@domain" for all users of a domain. Upper case and an address extension (user+folder) make no difference.',
    )
    .meta({ examples: [['antonio@example.org', '@example.net']] }),
  subject_tag: printable(0, 60)
    .optional()
    .describe('Subject tag that differs; "" for none.')
    .meta({ examples: ['[SPAM]'], defaultText: 'as for the domain or the site' }),
  thresholds: z
    .strictObject({
      tag: threshold.optional().describe('As in [thresholds].').meta(inherited(6)),
      junk: threshold.optional().describe('As in [thresholds].').meta(inherited(8)),
      reject: threshold.optional().describe('As in [thresholds].').meta(inherited(false)),
      discard: threshold.optional().describe('As in [thresholds].').meta(inherited(40)),
    })
    .optional()
    .describe('Score bands that differ from those of the domain or the site.'),
  rules: ruleTable.optional().describe('Rules that differ from those of the domain or the site.'),
  unavailable: ruleTable
    .optional()
    .describe('What is done when a check could not be made, where it differs from the domain or the site.'),
});

const policyContext = z.strictObject({
  contexts: z
    .array(printable(1, 100))
    .min(1)
    .describe(
      "Which requests this is for: values of Postfix's policy_context, as in check_policy_service { …, policy_context=submission }.",
    )
    .meta({ examples: [['submission']] }),
  direction: z
    .enum(['in', 'out'])
    .optional()
    .describe('What this mail is, whoever sends it.')
    .meta({ examples: ['out'], defaultText: 'outgoing with a login or from own_networks, else incoming' }),
  checks: z
    .array(printable(1, 32))
    .optional()
    .describe('Names of the checks that are made for these requests, of those that are enabled.')
    .meta({ examples: [['spf', 'limits']], defaultText: 'all that are enabled' }),
  rules: ruleTable.optional().describe('Rules that differ from those of the site.'),
  unavailable: ruleTable
    .optional()
    .describe('What is done when a check could not be made, where it differs from the site.'),
});

function inherited(example: unknown): { examples: unknown[]; defaultText: string } {
  return { examples: [example], defaultText: 'as for the domain or the site' };
}

function checkTables(checks: readonly CheckDefinition[]): z.ZodRawShape {
  const shape: Record<string, z.ZodType> = {};
  for (const check of checks) {
    if (check.partOf !== undefined) continue;
    shape[check.name] = z
      .strictObject({
        enabled: z
          .boolean()
          .default(check.optIn !== true)
          .describe('Whether this check is made.'),
        deadline: waitingTime()
          .prefault(check.deadline)
          .describe('The longest it may take; then it counts as unavailable.'),
        ...check.options,
      })
      .prefault({})
      .describe(check.summary);
  }
  return shape;
}

// What is written out here is the type of the configuration; a return type would say all of it twice.
// oxlint-disable-next-line typescript/explicit-module-boundary-types
export function schemaFor(checks: readonly CheckDefinition[]) {
  return z.strictObject({
    subject_tag: printable(0, 60)
      .default('[SPAM]')
      .describe(
        'Put in front of the subject of mail that is marked as spam; "" for none. Stands above the first [section].',
      ),
    site: z
      .strictObject({
        hostname: domain()
          .default(() => fullHostname())
          .describe('Name of this host, fully qualified, as it stands in trace fields and banners.')
          .meta({
            examples: ['mail.example.org'],
            defaultText: "the system's host name, with the domain that /etc/hosts gives it",
          }),
        authserv_id: domain()
          .optional()
          .describe('Name in Authentication-Results; the same on all hosts of a site.')
          .meta({ examples: ['mail.example.org'], defaultText: 'the host name' }),
        authserv_ids: z
          .array(domain())
          .max(20)
          .default([])
          .describe(
            'More names under which hosts of this site write Authentication-Results, or did. What comes from outside and bears one of them is taken out, as what bears authserv_id is.',
          )
          .meta({ examples: [['mx1.example.org', 'mx2.example.org']] }),
        own_networks: networkSet()
          .prefault(['127.0.0.0/8', '::1/128'])
          .describe(
            "Clients whose mail is outgoing: signed, and not checked as mail from outside. Postfix's mynetworks.",
          ),
        recipient_delimiter: printable(0, 1)
          .default('+')
          .describe("Postfix's recipient_delimiter: what stands between a user name and its extension."),
      })
      .prefault({})
      .describe('What holds for all daemons.'),
    state: z
      .strictObject({
        folder: filePath()
          .default('./postern-state')
          .describe(
            'Folder of the SQLite store and of spool files; made when missing. Under systemd the default is $STATE_DIRECTORY.',
          ),
        history_age: duration().prefault('30d').describe('Decisions older than this are removed.'),
        history_max_size: sizeBetween(16 * MIB, 1024 ** 4)
          .prefault('4GiB')
          .describe(
            'The most that the history file may hold; of more, the oldest decisions are removed. In Redis, history_entries bounds the history.',
          ),
        when_lost: z
          .enum(['rule', 'local'])
          .default('rule')
          .describe(
            'What becomes of limits while Redis can\'t be reached: "rule": as [unavailable] says; "local": each host keeps to its part of them.',
          ),
        redis,
      })
      .prefault({})
      .describe('What is kept between messages.'),
    policyd: z
      .strictObject({
        listen: listen('127.0.0.1:10040'),
        mode,
        group,
        deadline: waitingTime()
          .prefault('8s')
          .describe('The longest a request may wait for its answer; Postfix itself waits 100 s.'),
        max_connections: connections(2000, 'more are closed at once'),
        spf_header: z
          .enum(['received-spf', 'authentication-results', 'none'])
          .default('received-spf')
          .describe('What is put in front of a message that passes (PREPEND), once per message.'),
        split: z
          .boolean()
          .default(false)
          .describe(
            'Whether a message is taken for recipients with equal rules of refusal alone: the others are told 452 4.5.3 and come in a message of their own, which can be refused in session. docs/lmtp-filter.md says what that costs.',
          ),
      })
      .prefault({})
      .describe("The policy server: answers Postfix's check_policy_service."),
    milter: z
      .strictObject({
        listen: listen('127.0.0.1:8891'),
        mode,
        group,
        deadline: waitingTime()
          .prefault('100s')
          .describe('The longest the end of a message may wait for its verdict; Postfix waits 300 s.'),
        max_connections: connections(2000, 'more are closed at once'),
        workers,
        max_message_size: sizeBetween(1024, 1024 ** 4)
          .prefault('100MiB')
          .describe('A message with a larger body is refused with 552.'),
        memory_per_message: sizeBetween(0, 256 * MIB)
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
        ...upstreamKeys,
        deadline: waitingTime()
          .prefault('100s')
          .describe('The longest a message may wait for its checks after the final dot.'),
        max_connections: connections(500, 'more are told 421'),
        workers,
        max_message_size: sizeBetween(1024, 1024 ** 4)
          .prefault('100MiB')
          .describe('A larger message is refused with 552.'),
        memory_per_message: sizeBetween(0, 256 * MIB)
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
    logins: z
      .strictObject({
        enabled: z
          .boolean()
          .default(false)
          .describe(
            'Whether policyd answers questions about logins. "postern wire dovecot" prints the lines for Dovecot.',
          ),
        listen: listen('127.0.0.1:10041'),
        mode,
        group,
        api_key_file: filePath()
          .optional()
          .describe(
            'File with the secret that Dovecot shows with each question, as the header it sends, "X-API-Key: SECRET", without a line end. Only its owner may read it (mode 0600). "credential:NAME": a credential of systemd. Must be given unless this listens on a unix socket.',
          )
          .meta({ examples: ['logins.key'], defaultText: 'none' }),
        max_connections: connections(200, 'more are closed at once'),
        deadline: waitingTime()
          .refine((ms) => ms <= 1000, 'expected at most "1s": Dovecot itself waits 2 s')
          .prefault('50ms')
          .meta({ title: 'duration' })
          .describe(
            'The longest the state may take for its answer; then "unavailable" below says what is done.',
          ),
        ...loginRules,
      })
      .prefault({})
      .describe(
        "Dovecot's authentication policy: policyd is asked about every login, and told of wrong passwords.",
      ),
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
          .array(nameServer())
          .default([])
          .describe('Name servers as IP addresses, "192.0.2.53" or with a port "127.0.0.1:5353".')
          .meta({ examples: [['127.0.0.1:53']], defaultText: 'those of /etc/resolv.conf' }),
        timeout: waitingTime()
          .prefault('2s')
          .describe('The longest one query to one server may take; then the next one is asked.'),
        cache_entries: z
          .int()
          .min(0)
          .max(10_000_000)
          .default(20_000)
          .describe('Answers kept in memory, each for its TTL.')
          .meta({ title: 'number' }),
      })
      .prefault({})
      .describe('How names are resolved.'),
    directory,
    dovecot,
    feedback,
    spamd,
    rspamd,
    clamd,
    quarantine,
    checks: z
      .strictObject(checkTables(checks))
      .prefault({})
      .describe('What is looked at; one table for each check.'),
    rules: ruleTable
      .prefault({})
      .describe(
        'What is done about each finding, by its code: an action, or { action = "…", shadow = true, text = "…" }.',
      ),
    unavailable: ruleTable
      .prefault({})
      .describe('What is done when a check could not be made, by name of the check: as in [rules].'),
    thresholds: thresholds.prefault({}).describe('Score bands: what is done from which spam score on.'),
    signing: signingTable,
    arc: arcTable,
    policy: z
      .array(policyContext)
      .default([])
      .describe(
        'Rules of policyd for one policy_context, so that one listener serves port 25, submission and several Postfix instances. [[override]] comes on top.',
      ),
    notices: noticesTable,
    account: accounts,
    override: z
      .array(override)
      .default([])
      .describe('Settings of single domains and users; user before domain before site.'),
  });
}

export const configSchema = schemaFor(CHECKS);

/** The file as the schema has read it, before keys are loaded and rules are merged. */
export type ConfigFile = z.output<typeof configSchema>;
