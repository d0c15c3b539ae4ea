import type { Config } from '../config/config.ts';
import type { SocketAddress } from '../config/values.ts';
import { dovecotSecret } from './dovecot-secret.ts';

/** The lines of dovecot.conf (2.3) by which Dovecot tells how full mailboxes are; none when nobody is to be asked. */
export function dovecotQuotaLines(config: Config): string[] {
  const { doveadm, quota_clone: clone } = config.file.dovecot;
  if (doveadm === undefined && clone.address === undefined) return [];
  return [
    '# Quota. Which mailbox may hold how much is set by quota_rule and userdb, as before; this lets Postern see it.',
    '# What does not fit all the same stays in the queue of Postfix and is tried again, in place of a bounce: at RCPT, and after the data.',
    'lmtp_rcpt_check_quota = yes',
    'quota_full_tempfail = yes',
    '',
    ...(clone.address === undefined ? [] : cloneLines(config, clone.address)),
    ...(doveadm === undefined ? [] : doveadmLines(config, doveadm)),
  ];
}

function cloneLines(config: Config, address: SocketAddress): string[] {
  const { prefix, database, password_file: passwordFile } = config.file.dovecot.quota_clone;
  const parameters = [
    ...(address.kind === 'unix'
      ? [`path=${address.path}`]
      : [`host=${address.host}`, `port=${address.port}`]),
    ...(prefix === '' ? [] : [`prefix=${prefix}`]),
    ...(database === 0 ? [] : [`db=${database}`]),
  ];
  return [
    '# After each change Dovecot writes to Redis how full the mailbox is: dovecot.quota_clone. Before any "protocol" section.',
    'mail_plugins = $mail_plugins quota quota_clone',
    'plugin {',
    `  quota_clone_dict = redis:${parameters.join(':')}`,
    '}',
    ...(passwordFile === undefined
      ? []
      : [
          `# Add ":password=PASSWORD" to quota_clone_dict: the text of ${dovecotSecret(config, passwordFile).path}.`,
        ]),
    ...(/[:]/.test(prefix)
      ? ['# Dovecot 2.3 takes no colon in prefix: choose another dovecot.quota_clone.prefix.']
      : []),
    '',
  ];
}

function doveadmLines(config: Config, address: SocketAddress): string[] {
  const { api_key_file: keyFile } = config.file.dovecot;
  const key = keyFile === undefined ? null : dovecotSecret(config, keyFile);
  return [
    '# doveadm over HTTP: dovecot.doveadm. Who has the key may do anything with all mailboxes.',
    'service doveadm {',
    ...(address.kind === 'unix'
      ? ['  # Dovecot 2.3 takes HTTP over TCP only. In 2.4 this becomes: unix_listener PATH { type = http }']
      : ['  inet_listener http {', `    address = ${address.host}`, `    port = ${address.port}`, '  }']),
    '}',
    ...(key === null
      ? ['# dovecot.api_key_file names no file yet.']
      : [
          '# The file of dovecot.api_key_file, without a line end, which would be a part of the key. To make it, as root:',
          `#   (umask 077; printf '%s' "$(openssl rand -hex 32)" > ${key.path})${key.ours}`,
          `doveadm_api_key = <${key.path}`,
        ]),
    '',
  ];
}
