import type { Parameter, Place } from './opendkim-conf.ts';

/** Keys that opendkim looks up in a database or in LDAP, as tables of ours. */
export interface ImportedSource {
  /** Keys and values as TOML writes them, by table. */
  readonly tables: readonly {
    readonly name: string;
    readonly lines: readonly (readonly [key: string, value: string])[];
  }[];
  readonly reports: readonly { readonly place: Place; readonly what: string }[];
}

/** opendkim(8), DATA SETS: `dsn:backend://[user[:pwd]@][port+]host/dbase/key=value[?…]`. */
const DSN = /^dsn:(\w+):?:\/\/(?:([^@:]*)(?::([^@]*))?@)?(?:(\d+)\+)?([^/]+)\/([^/]+)\/(.+)$/;
const SERVERS: Readonly<Record<string, { readonly server: string; readonly port: string }>> = {
  mysql: { server: 'mariadb', port: '3306' },
  pgsql: { server: 'postgresql', port: '5432' },
};

/** Names that mean the same in every database without quotes. */
const NAME = /^[A-Za-z_][A-Za-z0-9_]{0,62}$/;

/** RFC 4516: `ldap://host[:port]/base?attributes?scope?filter`; opendkim's `$d` is what is looked for. */
const LDAP_URL = /^ldap(s?|i?):\/\/([^/?]*)\/([^?]*)\?([^?]*)\?([^?]*)\?(\(.*\))$/;
const ATTRIBUTE = /^[A-Za-z][A-Za-z0-9-]{0,127}$/;

interface Dsn {
  readonly server: string;
  readonly address: string;
  readonly user: string;
  readonly password: boolean;
  readonly database: string;
  readonly table: string;
  readonly key: string;
  readonly data: readonly string[];
}

const PASSWORD = 'write the password to this file, which only its owner may read';

/** null: neither is looked up elsewhere. */
export function importSources(
  keyTable: Parameter,
  signingTable: Parameter,
  take: (name: string) => Parameter | undefined,
): ImportedSource | null {
  const both = [keyTable, signingTable];
  if (both.every(({ value }) => value.startsWith('dsn:'))) return fromDatabase(keyTable, signingTable);
  if (both.every(({ value }) => /^ldap[si]?:/.test(value))) return fromLdap(keyTable, take);
  return null;
}

function fromDatabase(keyTable: Parameter, signingTable: Parameter): ImportedSource {
  const [keys, senders] = [dsnOf(keyTable.value), dsnOf(signingTable.value)];
  const [domain, selector, key] = keys?.data ?? [];
  const label = senders?.data[0];
  if (
    keys === null ||
    senders === null ||
    domain === undefined ||
    selector === undefined ||
    key === undefined ||
    label === undefined ||
    keys.address !== senders.address ||
    keys.database !== senders.database
  )
    return untaken(keyTable, 'these are not two tables of one MySQL or PostgreSQL database');
  const query =
    keys.table === senders.table && senders.key === domain && label === keys.key
      ? `SELECT ${selector} AS selector, ${key} AS private_key FROM ${keys.table} WHERE ${domain} = :domain`
      : `SELECT k.${selector} AS selector, k.${key} AS private_key FROM ${keys.table} k JOIN ${senders.table} s ON s.${label} = k.${keys.key} WHERE s.${senders.key} = :domain AND k.${domain} = :domain`;
  return {
    tables: [
      {
        name: 'directory.sql',
        lines: [
          ['server', quoted(keys.server)],
          ['address', quoted(keys.address)],
          ['database', quoted(keys.database)],
          ...(keys.user === '' ? [] : [['user', quoted(keys.user)] as const]),
          ...(keys.password ? [['password_file', quoted('directory.password')] as const] : []),
          ['signing_key', `[${quoted(query)}]`],
        ],
      },
    ],
    reports: [
      ...taken(keyTable, signingTable, 'directory.sql'),
      ...(keys.password ? [{ place: keyTable, what: `directory.sql.password_file: ${PASSWORD}` }] : []),
    ],
  };
}

function dsnOf(value: string): Dsn | null {
  const [, backend = '', user = '', password, port, host = '', database = '', rest = ''] =
    DSN.exec(value) ?? [];
  const known = SERVERS[backend];
  if (known === undefined) return null;
  const settings = new Map(
    rest.split('?').map((pair): [string, string] => {
      const at = pair.indexOf('=');
      return [pair.slice(0, at), pair.slice(at + 1)];
    }),
  );
  const [table = '', key = ''] = [settings.get('table'), settings.get('keycol')];
  const data = (settings.get('datacol') ?? '').split(',').map((column) => column.trim());
  if (settings.has('filter') || ![table, key, ...data].every((name) => NAME.test(name))) return null;
  return {
    server: known.server,
    address: `${host}:${port ?? known.port}`,
    user,
    password: password !== undefined,
    database,
    table,
    key,
    data,
  };
}

function fromLdap(keyTable: Parameter, take: (name: string) => Parameter | undefined): ImportedSource {
  const [, secure = '', host = '', base = '', attributes = '', scope = ''] =
    LDAP_URL.exec(keyTable.value) ?? [];
  const [domain = '', selector = '', key = ''] = attributes.split(',').map((name) => name.trim());
  if (secure === 'i' || host === '' || ![domain, selector, key].every((name) => ATTRIBUTE.test(name)))
    return untaken(keyTable, 'this is not ldap://HOST/BASE?DOMAIN,SELECTOR,KEY?SCOPE?(FILTER)');
  const [bind, password, tls] = ['ldapbinduser', 'ldapbindpassword', 'ldapusetls'].map(take);
  const encryption = secure === 's' ? 'ldaps' : /^[ty1]/i.test(tls?.value ?? '') ? 'starttls' : 'none';
  const port = secure === 's' ? '636' : '389';
  return {
    tables: [
      {
        name: 'directory.ldap',
        lines: [
          ['address', quoted(/:\d+$/.test(host) ? host : `${host}:${port}`)],
          ['tls', quoted(encryption)],
          ['base', quoted(base)],
          ...(bind === undefined ? [] : [['bind_dn', quoted(bind.value)] as const]),
          ...(password === undefined ? [] : [['password_file', quoted('ldap.password')] as const]),
        ],
      },
      {
        name: '[directory.ldap.signing_key]',
        lines: [
          ['filter', quoted(`(${domain}=:domain)`)],
          ['attributes', `{ selector = ${quoted(selector)}, private_key = ${quoted(key)} }`],
          ['scope', quoted(scope === 'base' || scope === 'one' ? scope : 'sub')],
        ],
      },
    ],
    reports: [
      ...taken(keyTable, keyTable, 'directory.ldap'),
      ...(password === undefined
        ? []
        : [{ place: password, what: `LDAPBindPassword: directory.ldap.password_file: ${PASSWORD}` }]),
    ],
  };
}

/** What an operator has to know of it. */
function taken(keyTable: Place, signingTable: Place, table: string): ImportedSource['reports'] {
  return [
    {
      place: signingTable,
      what: `SigningTable: taken over for senders in the domains of the keys ([${table}] signing_key); lines for single addresses, subdomains and other domains are entries of [[signing.table]] here, or signing_keys of accounts`,
    },
    {
      place: keyTable,
      what: 'KeyTable: all keys of a domain sign; values that are names of files are not read, the key has to be in the table',
    },
  ];
}

function untaken(place: Place, why: string): ImportedSource {
  return {
    tables: [],
    reports: [{ place, what: `KeyTable: ${why}; write signing_key in [directory.sql] or [directory.ldap]` }],
  };
}

function quoted(text: string): string {
  return JSON.stringify(text);
}
