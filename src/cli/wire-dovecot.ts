import type { Config } from '../config/config.ts';
import type { Filing } from '../config/upstream.ts';
import { formatSocketAddress, type SocketAddress } from '../config/values.ts';
import { dovecotSecret } from './dovecot-secret.ts';
import { dovecotQuotaLines } from './wire-dovecot-quota.ts';
import { feedbackLines, filingLines, shownFiles, SIEVE_FOLDER, sieveFiles } from './wire-dovecot-sieve.ts';

/** Dovecot's base_dir; its own listener stands there as `lmtp`. */
const BASE = /^(?:\/var)?\/run\/dovecot\//;

/** The lines of dovecot.conf (2.3) that let the LMTP filter deliver, file junk, and learn. @param folder where the Sieve scripts are */
export function dovecotLines(
  config: Config,
  filing: Filing = config.file['lmtp-filter'].filing,
  folder: string = SIEVE_FOLDER,
): string {
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
    ...filingLines(filing, folder),
    ...feedbackLines(config, folder),
  ].join('\n');
}

/** The Sieve scripts for people to copy: comments, so that all of what is printed can be a file of dovecot.conf. */
export function sieveText(config: Config, filing: Filing, folder: string = SIEVE_FOLDER): string {
  const files = sieveFiles(config, filing);
  if (files.length === 0) return '';
  return [
    '',
    '# The Sieve scripts (Debian: dovecot-sieve). "postern wire dovecot --write FOLDER" writes them. By hand: take "#   " off each line.',
    `# Compile them, which users may not: sievec ${folder}`,
    ...shownFiles(files, folder),
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
  const key = keyFile === undefined ? null : dovecotSecret({ path }, keyFile);
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
          `#   (umask 077; printf 'X-API-Key: %s' "$(openssl rand -hex 32)" > ${key.path})${key.ours}`,
          `auth_policy_server_api_header = <${key.path}`,
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
