import { z } from 'zod';

import { duration } from '../checks/options.ts';
import { LAYOUTS, layoutQueries, SERVERS } from './sql-layouts.ts';
import {
  readFilterTemplate,
  readSqlTemplate,
  type ParsedTemplate,
  type TemplateReading,
} from './sql-template.ts';
import { filePath, printable, socketAddress, waitingTime } from './values.ts';

/** `[directory.sql]`, `[directory.ldap]`, `[directory.cache]`: users and aliases that are kept elsewhere. */

const LONGEST_CACHE = 7 * 86_400_000;

function cacheTime(): z.ZodType<number, string> {
  return duration()
    .refine((ms) => ms <= LONGEST_CACHE, 'expected a duration of at most "7d"')
    .meta({ title: 'duration' });
}

export const directoryCache = z
  .strictObject({
    ttl: cacheTime().prefault('60s').describe('How long an answer is used before it is asked for again.'),
    negative_ttl: cacheTime()
      .prefault('30s')
      .describe('The same for answers that say "there is none": a new mailbox is unknown for no longer.'),
    stale: cacheTime()
      .prefault('1h')
      .describe('How much longer an answer is used while no new one can be had. "0s": never.'),
    entries: z
      .int()
      .min(1)
      .max(10_000_000)
      .default(100_000)
      .describe('Answers of each kind that are remembered.')
      .meta({ title: 'number' }),
  })
  .prefault({})
  .describe('What databases, LDAP and Dovecot said is remembered.');

const QUERY_LIMIT = 8192;

function query(read: (text: string) => TemplateReading, form: string): z.ZodType<ParsedTemplate, string> {
  return z
    .string(form)
    .max(QUERY_LIMIT, `expected at most ${QUERY_LIMIT} characters`)
    .transform((text, context): ParsedTemplate => {
      const reading = read(text);
      if (reading.ok) return reading.template;
      context.addIssue({ code: 'custom', message: reading.wrong });
      return z.NEVER;
    });
}

const QUERY_FORM = 'expected a query such as "SELECT email FROM users WHERE email = :address"';

function queries(): z.ZodType<readonly ParsedTemplate[], string[]> {
  return z
    .array(query(readSqlTemplate, QUERY_FORM), 'expected a list of queries')
    .max(16, 'expected at most 16 queries')
    .meta({ title: 'list of queries' });
}

function queriesFor(description: string, example: string) {
  return queries()
    .optional()
    .describe(description)
    .meta({ examples: [[example]], defaultText: 'those of the layout' });
}

const connections = z
  .int()
  .min(1)
  .max(1000)
  .default(8)
  .describe('Connections at once; each has one question at a time, more wait their turn.')
  .meta({ title: 'number' });

const timeout = waitingTime()
  .prefault('1s')
  .describe('The longest one question may take; then it counts as not answered.');

export const directorySql = z
  .strictObject({
    server: z
      .enum(SERVERS)
      .default('mariadb')
      .describe('What kind of database it is; "mariadb" is for MySQL too.'),
    address: socketAddress()
      .optional()
      .describe(
        'Where the server listens: "host:port" or "unix:/path". For PostgreSQL the path ends with .s.PGSQL.PORT.',
      )
      .meta({ examples: ['unix:/run/mysqld/mysqld.sock'], defaultText: 'none: no database is asked' }),
    file: filePath()
      .optional()
      .describe('The file of an SQLite database, in place of an address.')
      .meta({ examples: ['/home/user-data/mail/users.sqlite'], defaultText: 'none' }),
    database: printable(1, 128)
      .optional()
      .describe('Name of the database.')
      .meta({ examples: ['mail'], defaultText: 'none; it must be given with an address' }),
    user: printable(1, 128)
      .default('postern')
      .describe('Who we are to the server. This user needs to read the tables, and nothing else.'),
    password_file: filePath()
      .optional()
      .describe(
        'File with the password, one line. Only its owner may read it (mode 0600). "credential:NAME": a credential of systemd.',
      )
      .meta({ examples: ['credential:directory-password'], defaultText: 'none is given' }),
    tls: z
      .boolean()
      .default(false)
      .describe('Whether the connection is encrypted. The certificate must be for the name in `address`.'),
    tls_ca_file: filePath()
      .optional()
      .describe('File with the certificates that sign that of the server, PEM.')
      .meta({ examples: ['database-ca.pem'], defaultText: 'those that Node.js trusts' }),
    timeout,
    max_connections: connections,
    layout: z
      .enum(LAYOUTS)
      .optional()
      .describe('Tables that are known, whose queries need not be written: see docs/directories.md.')
      .meta({ examples: ['virtual'], defaultText: 'none: the queries below are all there are' }),
    mailbox_domain: queriesFor(
      'Whether a domain (:domain) has mailboxes: any row says yes.',
      'SELECT name FROM virtual_domains WHERE name = :domain',
    ),
    alias_domain: queriesFor(
      'Whether a domain (:domain) is ours and has aliases only: any row says yes.',
      'SELECT name FROM alias_domains WHERE name = :domain',
    ),
    alias: queriesFor(
      "Targets of an alias, as Postfix's virtual_alias_maps: asked for user+extension@domain, user@domain and @domain in turn. :address is the whole, :local and :domain its parts; a query with :local is not made for @domain. The first query with a row counts, with all its rows.",
      'SELECT destination FROM virtual_aliases WHERE source = :address',
    ),
    mailbox: queriesFor(
      "Dovecot's user name of the mailbox that an address (:address) has; no row: it has none.",
      'SELECT email FROM virtual_users WHERE email = :address',
    ),
    account: queriesFor(
      'Settings of a login or mailbox (:login), by the names of the columns: quota, senders, limit_NAME, tag, junk, reject, discard, subject_tag, language, rewrite_body, allow, block, signing_keys; asked for "@domain", too. See docs/directories.md.',
      'SELECT quota FROM virtual_users WHERE email = :login',
    ),
    signing_key: queriesFor(
      'DKIM keys of a domain (:domain), one in each row: columns selector, private_key (PEM, or the base64 of it), and if you like algorithm and subdomains. See docs/signing.md.',
      'SELECT selector, private_key FROM dkim WHERE domain = :domain AND active',
    ),
  })
  .prefault({})
  .describe(
    'A database with users and aliases: MariaDB, MySQL, PostgreSQL or SQLite. Values are bound to prepared statements.',
  );

const ATTRIBUTE_FORM = 'expected names of attributes by our names, such as { quota = "mailQuota" }';

const search = z.strictObject({
  filter: query(readFilterTemplate, 'expected an LDAP filter such as "(mail=:address)"')
    .describe('LDAP filter (RFC 4515); values are escaped.')
    .meta({ title: 'LDAP filter', examples: ['(mail=:address)'] }),
  attributes: z
    // A union of one, so that it is a value for the manual and not a section of its own.
    .union([
      z.record(
        z.string().regex(/^[a-z_][\w-]*$/, ATTRIBUTE_FORM),
        z.string(ATTRIBUTE_FORM).regex(/^[A-Za-z][A-Za-z0-9;-]{0,127}$/, ATTRIBUTE_FORM),
      ),
    ])
    .default({})
    .describe('Which attributes are read, by our names for them: user, target, or the columns of settings.')
    .meta({ title: 'table', examples: [{ user: 'uid' }], defaultText: 'none' }),
  base: printable(0, 500)
    .optional()
    .describe('Where the search begins.')
    .meta({ examples: ['ou=groups,dc=example,dc=org'], defaultText: 'as in [directory.ldap]' }),
  scope: z.enum(['base', 'one', 'sub']).default('sub').describe('How deep the search goes.'),
});

function searchesFor(description: string) {
  return z.array(search).max(16).optional().describe(description);
}

export const directoryLdap = z
  .strictObject({
    address: socketAddress()
      .optional()
      .describe('Where the server listens: "host:port" or "unix:/path".')
      .meta({ examples: ['127.0.0.1:389'], defaultText: 'none: no LDAP server is asked' }),
    tls: z
      .enum(['none', 'starttls', 'ldaps'])
      .default('none')
      .describe('How the connection is encrypted. The certificate must be for the name in `address`.'),
    tls_ca_file: filePath()
      .optional()
      .describe('File with the certificates that sign that of the server, PEM.')
      .meta({ examples: ['ldap-ca.pem'], defaultText: 'those that Node.js trusts' }),
    bind_dn: printable(1, 500)
      .optional()
      .describe('Name that we bind with.')
      .meta({ examples: ['cn=postern,dc=example,dc=org'], defaultText: 'none: anonymous' }),
    password_file: filePath()
      .optional()
      .describe(
        'File with its password, one line. Only its owner may read it (mode 0600). "credential:NAME": a credential of systemd.',
      )
      .meta({ examples: ['credential:ldap-password'], defaultText: 'none' }),
    base: printable(0, 500)
      .default('')
      .describe('Where searches begin.')
      .meta({ examples: ['ou=people,dc=example,dc=org'] }),
    timeout,
    max_connections: connections,
    layout: z
      .enum(['people'])
      .optional()
      .describe(
        'Entries that are known, whose searches need not be written: "people" has logins in uid and addresses in mail.',
      )
      .meta({ examples: ['people'], defaultText: 'none: the searches below are all there are' }),
    mailbox_domain: searchesFor('Whether a domain (:domain) has mailboxes: any entry says yes.'),
    alias_domain: searchesFor('Whether a domain (:domain) is ours and has aliases only: any entry says yes.'),
    alias: searchesFor(
      'Targets of an alias (:address), asked for as in [directory.sql]: all attributes that are read.',
    ),
    mailbox: searchesFor(
      "Dovecot's user name of the mailbox that an address (:address) has: attribute `user`.",
    ),
    account: searchesFor('Settings of a login or mailbox (:login), by our names of the columns.'),
    signing_key: searchesFor(
      'DKIM keys of a domain (:domain), one in each entry, by our names of the columns: selector, private_key, algorithm, subdomains.',
    ),
  })
  .prefault({})
  .describe('An LDAP server with users and aliases.');

export type SqlSettings = z.output<typeof directorySql>;
export type LdapSettings = z.output<typeof directoryLdap>;

export type SqlTemplates = Readonly<
  Record<
    'mailbox_domain' | 'alias_domain' | 'alias' | 'mailbox' | 'account' | 'signing_key',
    readonly ParsedTemplate[]
  >
>;

/** Whether there may be signing keys in [directory]. */
export function hasKeyLookups({
  sql,
  ldap,
}: {
  readonly sql: SqlSettings;
  readonly ldap: LdapSettings;
}): boolean {
  const [inSql, inLdap] = [sql.signing_key ?? [], ldap.signing_key ?? []];
  return inSql.length > 0 || inLdap.length > 0;
}

/** The queries that are made: those written down, and the layout's in place of those that are not. */
export function sqlTemplates(sql: SqlSettings): SqlTemplates {
  const ready = sql.layout === undefined ? null : layoutQueries(sql.layout, sql.server);
  const templates = (key: Exclude<keyof SqlTemplates, 'signing_key'>): readonly ParsedTemplate[] =>
    sql[key] ?? (ready?.[key] ?? []).map(parsed);
  return {
    mailbox_domain: templates('mailbox_domain'),
    alias_domain: templates('alias_domain'),
    alias: templates('alias'),
    mailbox: templates('mailbox'),
    account: templates('account'),
    // No layout has them: keys are never read without a word of the operator's.
    signing_key: sql.signing_key ?? [],
  };
}

function parsed(text: string): ParsedTemplate {
  const reading = readSqlTemplate(text);
  if (!reading.ok) throw new Error(`${text}: ${reading.wrong}`);
  return reading.template;
}

export interface LdapSearchSettings {
  readonly base: string;
  readonly scope: 'base' | 'one' | 'sub';
  readonly filter: ParsedTemplate;
  readonly columns: readonly { readonly column: string; readonly attribute: string }[];
}

export type LdapSearchTable = Readonly<Record<keyof SqlTemplates, readonly LdapSearchSettings[]>>;

const PEOPLE = {
  mailbox_domain: [{ filter: '(mail=*@:domain)', attributes: {} }],
  alias_domain: [],
  alias: [],
  mailbox: [{ filter: '(mail=:address)', attributes: { user: 'mail' } }],
  account: [{ filter: '(|(uid=:login)(mail=:login))', attributes: { senders: 'mail' } }],
  signing_key: [],
} as const satisfies Record<
  keyof SqlTemplates,
  readonly { filter: string; attributes: Readonly<Record<string, string>> }[]
>;

export function ldapSearches(ldap: LdapSettings): LdapSearchTable {
  const searches = (key: keyof SqlTemplates): readonly LdapSearchSettings[] => {
    const written = ldap[key];
    if (written !== undefined)
      return written.map(({ filter, attributes, base, scope }) => ({
        filter,
        base: base ?? ldap.base,
        scope,
        columns: columnsOf(attributes),
      }));
    const ready = ldap.layout === undefined ? [] : PEOPLE[key];
    return ready.map(({ filter, attributes }) => {
      const reading = readFilterTemplate(filter);
      if (!reading.ok) throw new Error(`${filter}: ${reading.wrong}`);
      return {
        filter: reading.template,
        base: ldap.base,
        scope: 'sub' as const,
        columns: columnsOf(attributes),
      };
    });
  };
  return {
    mailbox_domain: searches('mailbox_domain'),
    alias_domain: searches('alias_domain'),
    alias: searches('alias'),
    mailbox: searches('mailbox'),
    account: searches('account'),
    signing_key: searches('signing_key'),
  };
}

function columnsOf(attributes: Readonly<Record<string, string>>): LdapSearchSettings['columns'] {
  return Object.entries(attributes).map(([column, attribute]) => ({ column, attribute }));
}
