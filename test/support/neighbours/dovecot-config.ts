import type { PrivateFolder } from './folder.ts';

/** Mail belongs to a number without an entry in /etc/passwd. */
export const MAIL_UID = 5000;

export interface DovecotUser {
  readonly password: string;
  /** As in `quota_rule`'s storage, for instance `20K`. */
  readonly quota?: string;
}

export interface DovecotOptions {
  /** By login name, which is the mail address. A text is the password. */
  readonly users: Readonly<Record<string, string | DovecotUser>>;
  /** The quota of users without one of their own; without it and theirs, the quota plugin stays off. */
  readonly quota?: string;
  /** With quota: answer RCPT of full mailboxes with an error, as `lmtp_rcpt_check_quota` does. */
  readonly quotaAtRcpt?: boolean;
  /** A Sieve script that is run before every user's own. */
  readonly sieve?: string;
  /** From which addresses LMTP and IMAP clients may say XCLIENT. */
  readonly trustedNetworks?: string;
  readonly pop3?: boolean;
  /** Further text for dovecot.conf above the sections of the protocols, which take over its mail_plugins. */
  readonly early?: string;
  /** Further text for dovecot.conf; later settings win. */
  readonly extra?: string;
}

export interface DovecotPorts {
  readonly imap: number;
  readonly lmtp: number;
  readonly pop3: number;
  readonly quotaStatus: number;
}

export interface DovecotPaths {
  readonly config: string;
  readonly users: string;
  readonly mail: string;
  readonly sieveFolder: string;
  readonly sieve: string;
  readonly authSocket: string;
  readonly lmtpSocket: string;
}

export function dovecotPaths(folder: PrivateFolder): DovecotPaths {
  return {
    config: folder.join('dovecot.conf'),
    users: folder.join('users'),
    mail: folder.join('mail'),
    sieveFolder: folder.join('sieve'),
    sieve: folder.join('sieve', 'before.sieve'),
    authSocket: folder.join('auth.sock'),
    lmtpSocket: folder.join('lmtp.sock'),
  };
}

export function usersFile(options: DovecotOptions): string {
  const lines = Object.entries(options.users).map(([name, value]) => {
    const user = typeof value === 'string' ? { password: value } : value;
    const quota = 'quota' in user ? `userdb_quota_rule=*:storage=${user.quota}` : '';
    return `${name}:{PLAIN}${user.password}::::::${quota}`;
  });
  return `${lines.join('\n')}\n`;
}

export function dovecotConfig(
  folder: PrivateFolder,
  options: DovecotOptions,
  paths: DovecotPaths,
  ports: DovecotPorts,
): string {
  const quota = usesQuota(options);
  const protocols = ['imap', 'lmtp', ...(options.pop3 === true ? ['pop3'] : [])];
  const plugins = quota ? ['quota'] : [];
  const lmtpPlugins = ['$mail_plugins', ...(options.sieve === undefined ? [] : ['sieve'])];
  const imapPlugins = ['$mail_plugins', ...(quota ? ['imap_quota'] : [])];
  return `
base_dir = ${folder.join('run')}
state_dir = ${folder.join('state')}
log_path = /dev/stderr
log_timestamp = "%Y-%m-%d %H:%M:%S "
protocols = ${protocols.join(' ')}
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain login
auth_failure_delay = 0
${options.trustedNetworks === undefined ? '' : `login_trusted_networks = ${options.trustedNetworks}`}
mail_location = maildir:~/Maildir
mail_plugins = ${plugins.join(' ')}
${options.early ?? ''}
first_valid_uid = ${MAIL_UID}
recipient_delimiter = +
lda_mailbox_autocreate = yes
default_vsz_limit = 1G

passdb {
  driver = passwd-file
  args = username_format=%u ${paths.users}
}
userdb {
  driver = passwd-file
  args = username_format=%u ${paths.users}
  default_fields = uid=${MAIL_UID} gid=${MAIL_UID} home=${paths.mail}/%d/%n
}
namespace inbox {
  inbox = yes
  mailbox Junk {
    auto = subscribe
    special_use = \\Junk
  }
}

service imap-login {
  inet_listener imap {
    port = ${ports.imap}
  }
  inet_listener imaps {
    port = 0
  }
}
service pop3-login {
  inet_listener pop3 {
    port = ${ports.pop3}
  }
  inet_listener pop3s {
    port = 0
  }
}
service lmtp {
  inet_listener lmtp {
    port = ${ports.lmtp}
  }
  unix_listener ${paths.lmtpSocket} {
    mode = 0666
  }
}
service anvil {
  # No pause after a wrong password.
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
service auth {
  # Postfix and our daemons ask here, each as a user of its own; the folder is on this machine and short-lived.
  unix_listener ${paths.authSocket} {
    mode = 0666
  }
}
protocol lmtp {
  mail_plugins = ${lmtpPlugins.join(' ')}
  postmaster_address = postmaster@localhost
}
protocol imap {
  mail_plugins = ${imapPlugins.join(' ')}
}
${options.sieve === undefined ? '' : `plugin {\n  sieve = file:~/sieve;active=~/.dovecot.sieve\n  sieve_before = ${paths.sieve}\n}`}
${quota ? quotaConfig(options, ports.quotaStatus) : ''}
${options.extra ?? ''}
`;
}

function usesQuota({ quota, users }: DovecotOptions): boolean {
  const own = Object.values(users).some((user) => typeof user !== 'string' && user.quota !== undefined);
  return own || quota !== undefined;
}

function quotaConfig({ quota, quotaAtRcpt }: DovecotOptions, port: number): string {
  return `
lmtp_rcpt_check_quota = ${quotaAtRcpt === true ? 'yes' : 'no'}
plugin {
  quota = maildir:User quota
  ${quota === undefined ? '' : `quota_rule = *:storage=${quota}`}
  quota_grace = 0
  quota_status_success = DUNNO
  quota_status_nouser = DUNNO
  quota_status_overquota = "552 5.2.2 Mailbox is full"
}
service quota-status {
  executable = quota-status -p postfix
  client_limit = 1
  inet_listener {
    address = 127.0.0.1
    port = ${port}
  }
}
`;
}
