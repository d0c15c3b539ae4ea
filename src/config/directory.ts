import { z } from 'zod';

import { byteSize } from '../checks/options.ts';
import { directoryCache, directoryLdap, directorySql } from './directory-sources.ts';
import { domain, filePath } from './values.ts';

/** `[directory]` and `[[account]]`: whose mailboxes there are, and what is set for each. */

export const directory = z
  .strictObject({
    mailbox_domains: z
      .array(domain())
      .default([])
      .describe(
        "Domains whose addresses are mailboxes of Dovecot: Postfix's virtual_mailbox_domains. Those of the files in `mailboxes` are so as well.",
      )
      .meta({ examples: [['example.org', 'example.net']] }),
    alias_domains: z
      .array(domain())
      .default([])
      .describe(
        "Domains of ours that have aliases only: Postfix's virtual_alias_domains. One with a catch-all (@domain) in `aliases` is known without.",
      )
      .meta({ examples: [['example.com']] }),
    mailboxes: z
      .array(filePath())
      .default([])
      .describe(
        "Files with the mailboxes, one on each line: Dovecot's passwd-file, whose quotas (userdb_quota_rule, userdb_quota_storage_size) are read too, or the text of virtual_mailbox_maps. Read again when they change.",
      )
      .meta({
        examples: [['/etc/dovecot/users']],
        defaultText: 'none: every address in mailbox_domains may be a mailbox',
      }),
    aliases: z
      .array(filePath())
      .default([])
      .describe(
        "Texts of Postfix's virtual_alias_maps, those that postmap reads, in the same order. Read again when they change.",
      )
      .meta({ examples: [['/etc/postfix/virtual']] }),
    userdb: z
      .boolean()
      .default(false)
      .describe(
        'Whether Dovecot is asked for each mailbox, and for its quota_rule, through doveadm as [dovecot] says. Its domains are those in mailbox_domains.',
      ),
    cache: directoryCache,
    sql: directorySql,
    ldap: directoryLdap,
  })
  .prefault({})
  .describe('Users and aliases, as Postfix and Dovecot have them.');

const NAME_FORM = 'expected "user@domain", a login without a domain, or "@domain"';

const accountName = z
  .string(NAME_FORM)
  .regex(/^[^\s\p{Cc}]{1,320}$/u, NAME_FORM)
  .refine((text) => !text.endsWith('@'), NAME_FORM)
  .meta({ title: 'account' });

const NO_QUOTA = 'none';

const quota = z
  .union([z.literal(NO_QUOTA), byteSize()], 'expected a size such as "1GiB", or "none"')
  .transform((value) => (value === NO_QUOTA || value === 0 ? null : value))
  .meta({ title: 'size or "none"' });

const PATTERN_FORM = 'expected "user@domain", "@domain", "*@*.domain" or "*"';

const LIMIT_FORM = 'expected a whole number, or a size such as "1GiB"';

const limitValue = z.union([z.int(LIMIT_FORM).min(0, LIMIT_FORM), byteSize()], LIMIT_FORM);

function senderList(description: string) {
  const pattern = z
    .string()
    .regex(/^[^\s,]{1,320}$/, PATTERN_FORM)
    .meta({ title: 'address pattern' });
  return z.array(pattern).max(1000).default([]).describe(description);
}

export const accounts = z
  .array(
    z.strictObject({
      names: z
        .array(accountName)
        .min(1)
        .describe(
          'Whom this is for: logins and mailboxes, or "@domain" for all of a domain. Upper case makes no difference.',
        )
        .meta({ examples: [['antonio@example.org', '@example.net']] }),
      quota: quota
        .optional()
        .describe('Quota of the mailbox, in place of what files and Dovecot say.')
        .meta({
          examples: ['2GiB'],
          defaultText: 'as for the domain, else as the files in [directory] say, else as doveadm says',
        }),
      limits: z
        // A union of one, so that it is a value for the manual and not a section of its own.
        .union([z.record(z.string(), limitValue)])
        .default({})
        .describe(
          'Limits that differ, by the name of the limit in [[checks.limits.limit]]: { hourly = 500 }.',
        )
        .meta({ title: 'table', defaultText: 'as for the domain or the site', examples: [{ hourly: 500 }] }),
      senders: z
        .array(z.string().min(1).max(320).meta({ title: 'address pattern' }))
        .default([])
        .describe(
          'Sender addresses that the login may use besides its own and its aliases: "user@domain", "@domain", "*@*.domain".',
        )
        .meta({ examples: [['sales@example.org', '@example.com']] }),
      allow: senderList(
        'Senders whose mail the account wants, whatever its spam score. Counts only when the sender is proven: see docs/directories.md.',
      ).meta({
        examples: [['friend@example.com', '@example.net']],
      }),
      block: senderList('Senders whose mail it does not want: rule lists.block.').meta({
        examples: [['@example.com']],
      }),
    }),
  )
  .default([])
  .describe('Settings of single accounts: those of a user onto those of the domain.');
