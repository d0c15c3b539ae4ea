/** Debian packages of the neighbours that the demo starts. */
export const DEMO_PACKAGES = [
  'postfix',
  'dovecot-core',
  'dovecot-imapd',
  'dovecot-lmtpd',
  'spamassassin',
  'spamd',
  'spamc',
] as const;

/** What the tests start besides. */
export const NEIGHBOUR_PACKAGES = [...DEMO_PACKAGES, 'dovecot-sieve', 'bind9', 'opendkim-tools'] as const;
