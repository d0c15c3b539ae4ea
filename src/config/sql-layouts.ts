/** Queries for tables that are in wide use, as the software that made them has Postfix and Dovecot ask them. No query reads passwords. */

export const LAYOUTS = [
  'forwardings',
  'virtual',
  'postfixadmin',
  'iredmail',
  'ispconfig',
  'modoboa',
  'mailinabox',
] as const;
export type Layout = (typeof LAYOUTS)[number];
export const SERVERS = ['mariadb', 'postgresql', 'sqlite'] as const;
export type SqlServerKind = (typeof SERVERS)[number];

/** In the order in which they are asked. */
export interface LayoutQueries {
  readonly mailbox_domain: readonly string[];
  readonly alias_domain: readonly string[];
  readonly alias: readonly string[];
  readonly mailbox: readonly string[];
  readonly account: readonly string[];
}

/** Where the dialects differ. */
interface Dialect {
  readonly joined: (...texts: readonly string[]) => string;
  /** The domain of an address; LIKE would give "%" and "_" in a value a meaning. */
  readonly domainOf: (address: string) => string;
}

const STANDARD = { joined: (...texts: readonly string[]) => texts.join(' || ') };

const DIALECTS: Readonly<Record<SqlServerKind, Dialect>> = {
  mariadb: {
    joined: (...texts) => `CONCAT(${texts.join(', ')})`,
    domainOf: (address) => `SUBSTRING_INDEX(${address}, '@', -1)`,
  },
  postgresql: { ...STANDARD, domainOf: (address) => `split_part(${address}, '@', 2)` },
  sqlite: { ...STANDARD, domainOf: (address) => `substr(${address}, instr(${address}, '@') + 1)` },
};

/** Octets of a number of mebibytes; the columns are too small for the product. */
const MEBIBYTES = '1048576 * CAST';

export function layoutQueries(layout: Layout, server: SqlServerKind): LayoutQueries {
  const { joined, domainOf } = DIALECTS[server];
  // A catch-all must not be found for user+extension@domain, which is asked for before user@domain.
  const whole = (domain: string): string => `:address = ${joined("'@'", domain)}`;
  switch (layout) {
    case 'forwardings':
      return {
        mailbox_domain: ['SELECT domain FROM domains WHERE domain = :domain'],
        alias_domain: [],
        alias: [
          'SELECT destination FROM forwardings WHERE source = :address',
          // A mailbox is its own alias, so that a catch-all does not take its mail.
          'SELECT email FROM users WHERE email = :address',
        ],
        mailbox: ['SELECT email FROM users WHERE email = :address'],
        account: [],
      };
    case 'virtual':
      return {
        mailbox_domain: ['SELECT name FROM virtual_domains WHERE name = :domain'],
        alias_domain: [],
        alias: [
          'SELECT destination FROM virtual_aliases WHERE source = :address',
          'SELECT email FROM virtual_users WHERE email = :address',
        ],
        mailbox: ['SELECT email FROM virtual_users WHERE email = :address'],
        account: [],
      };
    case 'postfixadmin': {
      const target = joined(':local', "'@'", 'd.target_domain');
      const both = "d.alias_domain = :domain AND d.active = '1'";
      return {
        mailbox_domain: [
          "SELECT domain FROM domain WHERE domain = :domain AND backupmx = '0' AND active = '1'",
        ],
        alias_domain: [],
        alias: [
          "SELECT goto FROM alias WHERE address = :address AND active = '1'",
          `SELECT a.goto FROM alias a, alias_domain d WHERE ${both} AND a.address = ${target} AND a.active = '1'`,
          `SELECT a.goto FROM alias a, alias_domain d WHERE ${both} AND ${whole('d.alias_domain')} AND a.address = ${joined("'@'", 'd.target_domain')} AND a.active = '1'`,
        ],
        mailbox: [
          "SELECT username FROM mailbox WHERE username = :address AND active = '1'",
          `SELECT m.username FROM mailbox m, alias_domain d WHERE ${both} AND m.username = ${target} AND m.active = '1'`,
        ],
        // -1: PostfixAdmin keeps no quotas.
        account: [
          "SELECT CASE WHEN quota > 0 THEN quota ELSE 0 END AS quota FROM mailbox WHERE username = :login AND active = '1'",
        ],
      };
    }
    case 'iredmail': {
      const ours = 'o.active = 1 AND o.backupmx = 0';
      const alias = `d.alias_domain = :domain AND d.active = 1 AND d.target_domain = o.domain AND ${ours}`;
      return {
        mailbox_domain: [
          `SELECT o.domain FROM domain o WHERE o.domain = :domain AND ${ours}`,
          `SELECT d.alias_domain FROM alias_domain d, domain o WHERE ${alias}`,
        ],
        alias_domain: [],
        alias: [
          `SELECT f.forwarding FROM forwardings f, domain o WHERE f.address = :address AND f.domain = o.domain AND f.active = 1 AND ${ours}`,
          `SELECT f.forwarding FROM forwardings f, alias_domain d, domain o WHERE ${alias} AND f.address = ${joined(':local', "'@'", 'd.target_domain')} AND f.active = 1`,
          // A catch-all has the bare domain for its address.
          `SELECT f.forwarding FROM forwardings f, domain o WHERE f.address = :domain AND ${whole('f.address')} AND f.address = o.domain AND f.active = 1 AND ${ours}`,
          `SELECT f.forwarding FROM forwardings f, alias_domain d, domain o WHERE ${alias} AND ${whole('d.alias_domain')} AND f.address = d.target_domain AND f.active = 1`,
        ],
        mailbox: [
          `SELECT m.username FROM mailbox m, domain o WHERE m.username = :address AND m.active = 1 AND m.enabledeliver = 1 AND m.domain = o.domain AND ${ours}`,
        ],
        account: [
          `SELECT ${MEBIBYTES}(quota AS DECIMAL(20)) AS quota FROM mailbox WHERE username = :login AND active = 1`,
        ],
      };
    }
    case 'ispconfig':
      return {
        mailbox_domain: ["SELECT domain FROM mail_domain WHERE domain = :domain AND active = 'y'"],
        alias_domain: [],
        // Alias domains and catch-alls are rows whose source is "@domain".
        alias: [
          "SELECT destination FROM mail_forwarding WHERE source = :address AND active = 'y'",
          "SELECT email FROM mail_user WHERE email = :address AND postfix = 'y'",
        ],
        mailbox: ["SELECT email FROM mail_user WHERE email = :address AND postfix = 'y'"],
        account: [
          'SELECT CASE WHEN quota > 0 THEN quota ELSE 0 END AS quota, email AS senders FROM mail_user WHERE login = :login OR email = :login',
        ],
      };
    case 'modoboa': {
      const user = joined('m.address', "'@'", 'd.name');
      const mailbox = `admin_mailbox m JOIN admin_domain d ON m.domain_id = d.id JOIN core_user u ON m.user_id = u.id WHERE m.address = :local AND d.name = :domain AND u.is_active = '1'`;
      const quota = "CASE WHEN m.use_domain_quota = '1' THEN d.default_mailbox_quota ELSE m.quota END";
      return {
        mailbox_domain: [
          "SELECT name FROM admin_domain WHERE name = :domain AND type = 'domain' AND enabled = '1'",
        ],
        alias_domain: ["SELECT name FROM admin_domainalias WHERE name = :domain AND enabled = '1'"],
        alias: [
          "SELECT r.address FROM admin_aliasrecipient r JOIN admin_alias a ON r.alias_id = a.id WHERE a.address = :address AND a.enabled = '1'",
          `SELECT ${joined("'@'", 'd.name')} FROM admin_domain d JOIN admin_domainalias a ON a.target_id = d.id WHERE a.name = :domain AND a.enabled = '1' AND d.enabled = '1'`,
        ],
        mailbox: [`SELECT ${user} FROM ${mailbox}`],
        account: [`SELECT ${MEBIBYTES}(${quota} AS DECIMAL(20)) AS quota FROM ${mailbox}`],
      };
    }
    case 'mailinabox':
      return {
        mailbox_domain: [
          `SELECT 1 FROM users WHERE ${domainOf('email')} = :domain LIMIT 1`,
          `SELECT 1 FROM aliases WHERE ${domainOf('source')} = :domain LIMIT 1`,
          `SELECT 1 FROM auto_aliases WHERE ${domainOf('source')} = :domain LIMIT 1`,
        ],
        alias_domain: [],
        alias: [
          "SELECT destination FROM aliases WHERE source = :address AND destination <> ''",
          'SELECT email FROM users WHERE email = :address',
          "SELECT destination FROM auto_aliases WHERE source = :address AND destination <> ''",
        ],
        mailbox: ['SELECT email FROM users WHERE email = :address'],
        // Text such as "5G"; "0" is no limit.
        account: ['SELECT quota FROM users WHERE email = :login'],
      };
  }
}
