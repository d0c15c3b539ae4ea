import { existsSync } from 'node:fs';

export type Neighbour =
  | 'postfix'
  | 'dovecot'
  | 'spamd'
  | 'bind'
  | 'opendkim'
  | 'dkimpy'
  | 'redis'
  | 'clamd'
  | 'procmail'
  | 'rspamd'
  | 'mariadb'
  | 'postgres'
  | 'slapd'
  | 'networks';

export type Availability = { readonly ok: true } | { readonly ok: false; readonly reason: string };

/** The Debian packages, and the programs of theirs that the harness runs. */
const NEIGHBOURS = {
  postfix: {
    packages: ['postfix'],
    programs: ['/usr/lib/postfix/sbin/master', '/usr/sbin/postqueue', '/usr/sbin/sendmail'],
  },
  dovecot: {
    packages: ['dovecot-core', 'dovecot-imapd', 'dovecot-lmtpd', 'dovecot-pop3d', 'dovecot-sieve'],
    programs: [
      '/usr/sbin/dovecot',
      '/usr/lib/dovecot/imap',
      '/usr/lib/dovecot/lmtp',
      '/usr/lib/dovecot/pop3',
      '/usr/lib/dovecot/modules/lib90_sieve_plugin.so',
    ],
  },
  spamd: { packages: ['spamassassin', 'spamd', 'spamc'], programs: ['/usr/sbin/spamd', '/usr/bin/spamc'] },
  bind: { packages: ['bind9'], programs: ['/usr/sbin/named'] },
  opendkim: {
    packages: ['opendkim', 'opendkim-tools'],
    programs: ['/usr/sbin/opendkim', '/usr/sbin/opendkim-testmsg'],
  },
  dkimpy: {
    packages: ['python3-dkim', 'python3-dnspython', 'python3-nacl'],
    programs: ['/usr/bin/dkimverify', '/usr/bin/arcverify'],
  },
  redis: { packages: ['redis-server'], programs: ['/usr/bin/redis-server'] },
  clamd: { packages: ['clamav-daemon'], programs: ['/usr/sbin/clamd'] },
  procmail: { packages: ['procmail'], programs: ['/usr/bin/procmail'] },
  rspamd: { packages: ['rspamd'], programs: ['/usr/bin/rspamd'] },
  mariadb: {
    packages: ['mariadb-server'],
    programs: ['/usr/sbin/mariadbd', '/usr/bin/mariadb-install-db', '/usr/bin/mariadb'],
  },
  postgres: { packages: ['postgresql'], programs: ['/usr/lib/postgresql'] },
  slapd: { packages: ['slapd'], programs: ['/usr/sbin/slapd', '/usr/sbin/slapadd'] },
  // Hosts as network namespaces; whether the machine lets us make them is another question (network.ts).
  networks: { packages: ['iproute2'], programs: ['/usr/sbin/ip'] },
} satisfies Record<Neighbour, { packages: string[]; programs: string[] }>;

const ALL: readonly Neighbour[] = [
  'postfix',
  'dovecot',
  'spamd',
  'bind',
  'opendkim',
  'dkimpy',
  'redis',
  'clamd',
  'procmail',
  'rspamd',
  'mariadb',
  'postgres',
  'slapd',
  'networks',
];

/** What to install for them. */
export function debianPackages(neighbours: readonly Neighbour[] = ALL): string[] {
  return neighbours.flatMap((neighbour) => NEIGHBOURS[neighbour].packages);
}

/** Whether real neighbours can be started here, and if not, why. */
export function neighboursAvailable(neighbours: readonly Neighbour[] = ALL): Availability {
  if (process.platform !== 'linux') return { ok: false, reason: 'real neighbours run on Linux only' };
  if (process.getuid?.() !== 0) return { ok: false, reason: 'real neighbours need root to start' };
  if (!existsSync('/usr/bin/setpriv')) return { ok: false, reason: 'no setpriv (package util-linux)' };
  const missing = neighbours.filter((neighbour) =>
    NEIGHBOURS[neighbour].programs.some((program) => !existsSync(program)),
  );
  if (missing.length === 0) return { ok: true };
  return {
    ok: false,
    reason: `not installed: ${missing.join(', ')} (bash scripts/debian.sh ${debianPackages(missing).join(' ')})`,
  };
}
