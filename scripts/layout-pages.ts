import {
  LAYOUTS,
  layoutQueries,
  SERVERS,
  type Layout,
  type SqlServerKind,
} from '../src/config/sql-layouts.ts';

interface About {
  readonly of: string;
  /** Those of its servers whose queries are known; the first is the one that is shown. */
  readonly servers: readonly SqlServerKind[];
  readonly where: string;
  readonly database: string;
  readonly notes: readonly string[];
}

const OWN_QUOTA =
  'No settings. With a column for the quota: `account = ["SELECT quota FROM TABLE WHERE email = :login"]`, and so on for the [other columns](../directories.md#queries-of-your-own).';
const OWN_ALIAS =
  "A user is its own alias, so that a catch-all (`@example.org`) does not take its mail. Postfix must see it the same way: have a query such as `SELECT email FROM TABLE WHERE email = '%s'` among its `virtual_alias_maps`, too.";

const ABOUT: Readonly<Record<Layout, About>> = {
  forwardings: {
    of: 'Tables `domains(domain)`, `forwardings(source, destination)` and `users(email, …)`, as in the older ones of the Postfix and Dovecot tutorials with MySQL.',
    servers: SERVERS,
    where: 'address = "unix:/run/mysqld/mysqld.sock"',
    database: 'mail',
    notes: [OWN_ALIAS.replace('TABLE', 'users'), OWN_QUOTA.replace('TABLE', 'users')],
  },
  virtual: {
    of: 'Tables `virtual_domains(id, name)`, `virtual_users(id, domain_id, email, …)` and `virtual_aliases(id, domain_id, source, destination)`, as in most tutorials for Postfix, Dovecot and MariaDB.',
    servers: SERVERS,
    where: 'address = "unix:/run/mysqld/mysqld.sock"',
    database: 'mailserver',
    notes: [
      'Several rows of one source are several targets.',
      OWN_ALIAS.replace('TABLE', 'virtual_users'),
      OWN_QUOTA.replace('TABLE', 'virtual_users'),
    ],
  },
  postfixadmin: {
    of: 'Tables of PostfixAdmin: `domain`, `mailbox`, `alias`, `alias_domain`.',
    servers: SERVERS,
    where: 'address = "unix:/run/mysqld/mysqld.sock"',
    database: 'postfix',
    notes: [
      'Rows that are not `active`, and backup domains, are not there.',
      'Alias domains are followed with and without aliases of their own.',
      'The quota is `mailbox.quota`, octets.',
    ],
  },
  iredmail: {
    of: 'Tables of iRedMail: `domain`, `mailbox`, `forwardings`, `alias_domain` (the editions with MariaDB and PostgreSQL; for the one with OpenLDAP write [searches](../directories.md#ldap-people)).',
    servers: ['mariadb', 'postgresql'],
    where: 'address = "127.0.0.1:3306"',
    database: 'vmail',
    notes: [
      'Rows that are not `active`, and backup domains, are not there.',
      'The quota is `mailbox.quota`, MiB.',
    ],
  },
  ispconfig: {
    of: 'Tables of ISPConfig: `mail_domain`, `mail_user`, `mail_forwarding`.',
    servers: SERVERS,
    where: 'address = "unix:/run/mysqld/mysqld.sock"',
    database: 'dbispconfig',
    notes: [
      'The quota is `mail_user.quota`, octets.',
      'A login that is not the address may send as its `email`.',
      'Alias domains and catch-alls are rows of `mail_forwarding` whose source is `@domain`.',
    ],
  },
  modoboa: {
    of: 'Tables of Modoboa: `admin_domain`, `admin_domainalias`, `admin_mailbox`, `admin_alias`, `admin_aliasrecipient`, `core_user`.',
    servers: SERVERS,
    where: 'address = "127.0.0.1:5432"',
    database: 'modoboa',
    notes: [
      'The quota is that of the mailbox, or with `use_domain_quota` the `default_mailbox_quota` of the domain; MiB.',
      'A domain alias has no mailboxes of its own.',
    ],
  },
  mailinabox: {
    of: 'Tables of Mail-in-a-Box: `users`, `aliases`, `auto_aliases`, in a file of SQLite that Postern opens to read only.',
    servers: ['sqlite'],
    where: 'file = "/home/user-data/mail/users.sqlite"',
    database: '',
    notes: ['The quota is `users.quota`, text such as `5G`; `0` is no limit.'],
  },
};

const ASKED: readonly (readonly [key: keyof ReturnType<typeof layoutQueries>, means: string])[] = [
  ['mailbox_domain', 'Whether a domain has mailboxes.'],
  ['alias_domain', 'Whether a domain has aliases only.'],
  ['alias', 'Where an address leads to; the first query with a row counts.'],
  ['mailbox', 'Whether there is a mailbox, and the user that Dovecot knows it by.'],
  ['account', 'What is set for a login or mailbox.'],
];

/** One page for each layout of tables that is known. */
export const LAYOUT_PAGES = LAYOUTS.map((layout) => ({
  path: `docs/layouts/${layout}.md`,
  text: (): string => page(layout),
}));

function page(layout: Layout): string {
  const { of, servers, where, database, notes } = ABOUT[layout];
  const [shown = 'mariadb'] = layout === 'modoboa' ? (['postgresql'] as const) : servers;
  const queries = layoutQueries(layout, shown);
  const tables = [...new Set(Object.values(queries).flat().flatMap(tablesIn))].toSorted();
  const lines = [
    `# The layout \`${layout}\``,
    `<!-- Made from src/config/sql-layouts.ts by npm run generate -->`,
    of,
    `Servers: ${servers.map((server) => `\`${server}\``).join(', ')}. [Directories](../directories.md) says what the answers are used for, how long they are remembered, and what happens while the server is away.`,
    '```toml',
    '[directory.sql]',
    `server = "${shown}"`,
    where,
    ...(database === ''
      ? []
      : [`database = "${database}"`, 'user = "postern"', 'password_file = "credential:directory"']),
    `layout = "${layout}"`,
    '```',
    ...(database === '' ? [] : [grants(shown, database, tables)]),
    'What Postern then sees:',
    '```\npostern directory info@example.org\n```',
    ...notes.map((note) => `- ${note}`),
    `## Queries`,
    `As for \`${shown}\`; each can be replaced by one of your own.`,
    ...ASKED.flatMap(([key, means]) =>
      queries[key].length === 0
        ? []
        : [
            `\`${key}\`: ${means}`,
            `\`\`\`sql\n${queries[key].map((query) => `${query};`).join('\n')}\n\`\`\``,
          ],
    ),
  ];
  return `${lines.join('\n\n').replaceAll(/(?<=^```toml\n)[\s\S]*?(?=^```$)/gm, (block) => block.replaceAll('\n\n', '\n').trimStart())}\n`;
}

function grants(server: SqlServerKind, database: string, tables: readonly string[]): string {
  const user = server === 'mariadb' ? "'postern'@'localhost'" : 'postern';
  const created =
    server === 'mariadb'
      ? `CREATE USER ${user} IDENTIFIED BY '…';`
      : `CREATE ROLE ${user} LOGIN PASSWORD '…';`;
  const granted = tables.map((table) =>
    server === 'mariadb'
      ? `GRANT SELECT ON ${database}.${table} TO ${user};`
      : `GRANT SELECT ON ${table} TO ${user};`,
  );
  return `A user that may read these tables and nothing else; passwords are never asked for, so their columns can be left out:\n\n\`\`\`sql\n${[created, ...granted].join('\n')}\n\`\`\``;
}

function tablesIn(query: string): string[] {
  const [, from = ''] = /\bFROM (.*?)(?: WHERE |$)/.exec(query) ?? [];
  return from
    .split(/,| JOIN /)
    .map((part) => part.trim().split(/\s/)[0] ?? '')
    .filter((name) => name !== '');
}
