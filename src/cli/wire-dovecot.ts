import type { Config } from '../config/config.ts';
import type { SocketAddress } from '../config/values.ts';

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
export function dovecotLines({ file }: Config): string {
  const { upstream } = file['lmtp-filter'];
  return [
    '# The listener that Postern delivers to: lmtp-filter upstream.',
    'service lmtp {',
    ...listener(upstream).map((line) => `  ${line}`),
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
