import { dirname, resolve } from 'node:path';

import type { Config } from '../config/config.ts';
import { formatSocketAddress, type SocketAddress } from '../config/values.ts';
import { dovecotQuotaLines } from './wire-dovecot-quota.ts';

/** Dovecot's base_dir; its own listener stands there as `lmtp`. */
const BASE = /^(?:\/var)?\/run\/dovecot\//;

/**
 * The Sieve script that files what Postern has marked: by its score, or by a rule for another finding. Postern takes both fields away
 * from mail that brings its own.
 */
export const JUNK_SIEVE = `require ["fileinto", "mailbox"];
if anyof (header :is "X-Spam-Flag" "YES", header :matches "X-Postern-Verdict" ["junk;*", "quarantine;*"]) {
  fileinto :create "Junk";
  stop;
}
`;

/** The lines of dovecot.conf (2.3) that let the LMTP filter deliver, and file junk. */
export function dovecotLines(config: Config): string {
  const { upstream } = config.file['lmtp-filter'];
  return [
    ...dovecotQuotaLines(config),
    '# The listener that Postern delivers to: lmtp-filter upstream.',
    'service lmtp {',
    ...upstream.flatMap((address) => [
      ...(upstream.length > 1 ? [`  # on ${address.kind === 'tcp' ? address.host : 'this host'}`] : []),
      ...listener(address).map((line) => `  ${line}`),
    ]),
    '}',
    '',
    '# Mail that is marked as spam, or judged to be junk, goes to the folder Junk, before the scripts of the users are run.',
    '# Needs the Sieve plugin (Debian: dovecot-sieve). Write the script, then run: sievec /etc/dovecot/sieve/postern.sieve',
    '#',
    '# /etc/dovecot/sieve/postern.sieve:',
    ...JUNK_SIEVE.trimEnd()
      .split('\n')
      .map((line) => `#   ${line}`),
    'protocol lmtp {',
    '  mail_plugins = $mail_plugins sieve',
    '}',
    'plugin {',
    '  sieve_before = /etc/dovecot/sieve/postern.sieve',
    '}',
    '',
  ].join('\n');
}

function listener(address: SocketAddress): string[] {
  if (address.kind === 'tcp') {
    return ['inet_listener postern {', `  address = ${address.host}`, `  port = ${address.port}`, '}'];
  }
  const name = address.path.replace(BASE, '');
  return [
    '# "postern" is the user that Postern runs as. Nobody else may write here: mail that comes this way is not checked.',
    `unix_listener ${name} {`,
    '  mode = 0600',
    '  user = postern',
    '}',
  ];
}

/** Postfix waits 10 s for the end of a login, Dovecot asks once here, and an answer of ours is there long before this. */
const QUESTION_TIMEOUT_MS = 500;

/** The lines of dovecot.conf (2.3) by which Dovecot asks about logins; empty: [logins] is off. */
export function loginLines({ path, file }: Config): string {
  const { enabled, listen, api_key_file: keyFile, deadline } = file.logins;
  if (!enabled) return '';
  const key = keyFile === undefined ? null : resolve(dirname(path ?? '.'), keyFile);
  return [
    '',
    '# policyd is asked about each login, before the password is looked at, and told of the outcome.',
    ...(listen.kind === 'unix'
      ? ['# Dovecot 2.3 asks over TCP only: a proxy has to stand between, whose address goes here.']
      : []),
    `auth_policy_server_url = http://${listen.kind === 'unix' ? '127.0.0.1' : reachable(listen)}/logins`,
    ...(key === null
      ? []
      : [
          '# The file of logins.api_key_file, on every Dovecot host: one line "X-API-Key: SECRET" without a line end, at which the auth',
          '# process would abort. To make it, as root, and give it to the user that Postern runs as:',
          `#   (umask 077; printf 'X-API-Key: %s' "$(openssl rand -hex 32)" > ${key}); chown postern ${key}`,
          `auth_policy_server_api_header = <${key}`,
        ]),
    '# A secret of Dovecot alone, the same on all its hosts: with it nobody can try passwords against the hashes that it sends.',
    '#   (umask 077; printf \'%s\' "$(openssl rand -hex 32)" > /etc/dovecot/auth-policy-nonce)',
    'auth_policy_hash_nonce = </etc/dovecot/auth-policy-nonce',
    '# With mech, a device that repeats one wrong password is told from guesses. Do not leave out login, remote and protocol.',
    'auth_policy_request_attributes = login=%{requested_username} pwhash=%{hashed_password} remote=%{rip} device_id=%{client_id} protocol=%s session_id=%{session} mech=%{mech}',
    ...(file.logins['new-device'].notify
      ? ['# What clients call themselves (the ID command), for [logins.new-device].', 'imap_id_retain = yes']
      : []),
    '# Asked once is enough; a second delay would be added to the first.',
    'auth_policy_check_after_auth = no',
    '# When policyd does not answer, logins go on (auth_policy_reject_on_fail = no), after this time.',
    `auth_policy_server_timeout_msecs = ${Math.max(QUESTION_TIMEOUT_MS, deadline + 250)}`,
    '',
  ].join('\n');
}

/** An address that listens everywhere is reached on this machine. */
function reachable(address: Extract<SocketAddress, { kind: 'tcp' }>): string {
  const host = { '0.0.0.0': '127.0.0.1', '::': '::1' }[address.host] ?? address.host;
  return formatSocketAddress({ ...address, host });
}
