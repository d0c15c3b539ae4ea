import type { Config } from '../config/config.ts';
import type { SocketAddress } from '../config/values.ts';

export interface PostfixLines {
  readonly mainCf: string;
  readonly masterCf: string;
}

/** Debian's and upstream's queue_directory; unix sockets below it are written relative to it. */
const QUEUE = '/var/spool/postfix/';

/** The lines of main.cf and master.cf that put the three daemons of this configuration to work. */
export function postfixLines(config: Config): PostfixLines {
  return { mainCf: mainCf(config), masterCf: masterCf(config) };
}

function mainCf({ file, views }: Config): string {
  const { policyd, milter } = file;
  const policyService = `${socket(policyd.listen)}, timeout=${seconds(policyd.deadline + 2000)}, default_action=DUNNO`;
  const asksAtEnd = Array.from(views.values()).some(({ checks }) =>
    checks.some(({ stage }) => stage === 'end'),
  );
  const lmtp = file['lmtp-filter'];
  const largest = Math.min(milter.max_message_size, lmtp.max_message_size);
  const milterWait = Math.ceil(milter.deadline / 1000) + 30;
  return [
    '# Long queue ids never come twice; Postern joins the records of a message by them.',
    'enable_long_queue_ids = yes',
    '',
    `# Not more than Postern takes: message_size_limit of at most ${largest} (milter and lmtp-filter max_message_size).`,
    '',
    '# Who may relay is decided here, before and apart from policyd: no answer of it can make this host an open relay.',
    'smtpd_relay_restrictions = permit_mynetworks, permit_sasl_authenticated, reject_unauth_destination',
    '',
    '# Policy server, asked about every recipient, those of your own users too (limits, sender addresses, compromised accounts):',
    '# so it must not stand below permit_mynetworks or permit_sasl_authenticated.',
    '# While policyd is away the milter judges by the same rules, at the end of the message: hence default_action=DUNNO.',
    '# Where there is no milter, leave default_action out; senders then try again.',
    ...chrootCaveat(policyd.listen, 'smtpd'),
    'smtpd_recipient_restrictions =',
    '    reject_unlisted_recipient,',
    `    check_policy_service { ${policyService} }`,
    ...(asksAtEnd
      ? [
          '# Real sizes and real numbers of recipients, for limits and quota.',
          `smtpd_end_of_data_restrictions = check_policy_service { ${policyService} }`,
        ]
      : []),
    '',
    '# Milter. With tempfail a sender tries again while Postern is away; with accept such mail passes unchecked.',
    ...chrootCaveat(milter.listen, 'smtpd and cleanup'),
    `smtpd_milters = ${socket(milter.listen)}`,
    '# Mail that local programs hand in with sendmail(1): signed as well.',
    'non_smtpd_milters = $smtpd_milters',
    'milter_protocol = 6',
    'milter_default_action = tempfail',
    // The default of 300 s is left alone where it is enough.
    ...(milterWait > 300 ? [`milter_content_timeout = ${milterWait}s`] : []),
    '',
    '# LMTP filter, in the place of virtual_transport = lmtp:unix:private/dovecot-lmtp. For local users (mydestination) set',
    '# mailbox_transport to the same.',
    ...chrootCaveat(lmtp.listen, null),
    `virtual_transport = postern:${socket(lmtp.listen)}`,
    '# One failure must not make Postfix give up the destination for minutes (its default is 1).',
    'postern_destination_concurrency_failed_cohort_limit = 10',
    '',
  ].join('\n');
}

function masterCf({ file }: Config): string {
  const lmtp = file['lmtp-filter'];
  const lmtpWait = Math.ceil((lmtp.deadline + lmtp.upstream_timeout) / 1000) + 30;
  return [
    '# service type  private unpriv  chroot  wakeup  maxproc command',
    'postern   unix  -       -       n       -       -       lmtp',
    '# Tells Postern the queue id and the client.',
    '    -o lmtp_send_xforward_command=yes',
    '# Keeps 8-bit bodies as they are: a conversion breaks their DKIM signatures.',
    '    -o disable_mime_output_conversion=yes',
    ...(lmtpWait > 600 ? [`    -o lmtp_data_done_timeout=${lmtpWait}s`] : []),
    '',
    '# Add this option to the submission services you have (submission, submissions or smtps), so that their mail is',
    '# known as outgoing:',
    '#    -o milter_macro_daemon_name=ORIGINATING',
    '',
    ...(file.quarantine.where === 'folder' ? releaseListener(file.quarantine.release_to) : []),
  ].join('\n');
}

/** Takes what `postern quarantine release` sends: nothing looks at it again, and nothing is changed in it. */
export function releaseListener(address: SocketAddress): string[] {
  return [
    '# Takes what "postern quarantine release" sends: it is not judged again, and nothing is changed in it. For this host alone.',
    `${socket(address).replace(/^inet:/, '')} inet n  -       n       -       -       smtpd`,
    '    -o syslog_name=postfix/release',
    '    -o mynetworks=127.0.0.0/8,[::1]/128',
    '    -o smtpd_milters=',
    '    -o smtpd_client_restrictions=',
    '    -o smtpd_helo_restrictions=',
    '    -o smtpd_sender_restrictions=',
    '    -o smtpd_relay_restrictions=permit_mynetworks,reject',
    '    -o smtpd_recipient_restrictions=permit_mynetworks,reject',
    '    -o smtpd_data_restrictions=',
    '    -o smtpd_end_of_data_restrictions=',
    '    -o smtpd_tls_security_level=none',
    '    -o smtpd_sasl_auth_enable=no',
    '    -o local_header_rewrite_clients=',
    '    -o receive_override_options=no_header_body_checks,no_milters',
    '',
  ];
}

/** In Postfix's words: `inet:127.0.0.1:8891`, `unix:/run/postern/milter`, `unix:private/postern` below the queue. */
function socket(address: SocketAddress): string {
  if (address.kind === 'unix') {
    const { path } = address;
    return `unix:${path.startsWith(QUEUE) ? path.slice(QUEUE.length) : path}`;
  }
  const host = reachable(address.host);
  return `inet:${host.includes(':') ? `[${host}]` : host}:${address.port}`;
}

/** Where to connect to when a daemon listens on all addresses. */
function reachable(host: string): string {
  if (host === '0.0.0.0') return '127.0.0.1';
  return host === '::' ? '::1' : host;
}

function chrootCaveat(address: SocketAddress, chrooted: string | null): string[] {
  if (address.kind !== 'unix' || address.path.startsWith(QUEUE)) return [];
  if (chrooted === null) {
    return [
      '# The transport below is not chrooted, so that it finds this socket; the user "postfix" must be able to write to it.',
    ];
  }
  return [
    `# Debian runs ${chrooted} chrooted in ${QUEUE}, where this socket does not exist: put it below that folder`,
    `# (unix:${QUEUE}postern/…), set "n" in the chroot column of master.cf, or listen on 127.0.0.1.`,
    '# The user "postfix" must be able to write to the socket: see the keys group and mode.',
  ];
}

function seconds(milliseconds: number): string {
  return `${Math.ceil(milliseconds / 1000)}s`;
}
