import type { PrivateFolder } from './folder.ts';

export interface PostfixOptions {
  readonly hostname?: string;
  readonly domains?: readonly string[];
  /** Addresses in `domains`; names without an entry are refused at RCPT. */
  readonly mailboxes?: readonly string[];
  readonly aliases?: Readonly<Record<string, string | readonly string[]>>;
  /** `lmtp:inet:127.0.0.1:PORT`, `lmtp:unix:/PATH` or `postern:inet:127.0.0.1:PORT`; without it mail is discarded. */
  readonly virtualTransport?: string;
  /** By domain, for instance `smtp:[127.0.0.1]:PORT`. Elsewhere there is no route: such mail bounces. */
  readonly transports?: Readonly<Record<string, string>>;
  /** Defaults to loopback; a client that plays another host by XCLIENT is not in it. */
  readonly mynetworks?: string;
  /** With it there is a submission listener, which asks this Dovecot socket about passwords. */
  readonly saslSocket?: string;
  /** Milters of the submission listener; without it `smtpdMilters`. */
  readonly submissionMilters?: string;
  readonly smtpdMilters?: string;
  readonly nonSmtpdMilters?: string;
  readonly milterProtocol?: number;
  readonly milterDefaultAction?: 'accept' | 'tempfail' | 'reject' | 'quarantine';
  /** As in `inet:127.0.0.1:10040` or `unix:/PATH`: asked at RCPT after reject_unauth_destination. */
  readonly policyService?: string;
  /** Asked on the submission listener before permit_sasl_authenticated, with policy_context=submission. */
  readonly submissionPolicyService?: string;
  /** Parameters of the submission listener that differ from main.cf; they win over ours. */
  readonly submission?: Readonly<Record<string, string>>;
  readonly dataPolicyService?: string;
  readonly endOfDataPolicyService?: string;
  readonly policyTimeout?: string;
  /** From `startBind`: the name server that this Postfix asks. Without it Postfix makes no look-ups. */
  readonly resolvConf?: string;
  /** Further parameters of main.cf, which win over ours. */
  readonly main?: Readonly<Record<string, string>>;
  /** Further lines of master.cf. */
  readonly master?: readonly string[];
}

export interface PostfixPorts {
  readonly smtp: number;
  readonly submission: number;
}

/** Only root's daemons and postfix's own; everything unchrooted, and nothing that asks the machine's passwd. */
const SERVICES = `
pickup     unix  n  -  n  1  1  pickup
cleanup    unix  n  -  n  -  0  cleanup
qmgr       unix  n  -  n  300  1  qmgr
tlsmgr     unix  -  -  n  1000?  1  tlsmgr
rewrite    unix  -  -  n  -  -  trivial-rewrite
bounce     unix  -  -  n  -  0  bounce
defer      unix  -  -  n  -  0  bounce
trace      unix  -  -  n  -  0  bounce
verify     unix  -  -  n  -  1  verify
flush      unix  n  -  n  1000?  0  flush
proxymap   unix  -  -  n  -  -  proxymap
proxywrite unix  -  -  n  -  1  proxymap
smtp       unix  -  -  n  -  -  smtp
relay      unix  -  -  n  -  -  smtp
showq      unix  n  -  n  -  -  showq
error      unix  -  -  n  -  -  error
retry      unix  -  -  n  -  -  error
discard    unix  -  -  n  -  -  discard
local      unix  -  n  n  -  -  local
virtual    unix  -  n  n  -  -  virtual
lmtp       unix  -  -  n  -  -  lmtp
anvil      unix  -  -  n  -  1  anvil
scache     unix  -  -  n  -  1  scache
postlog    unix-dgram  n  -  n  -  1  postlogd
postern    unix  -  -  n  -  -  lmtp
  -o lmtp_send_xforward_command=yes
  -o disable_mime_output_conversion=yes
`;

export function mainCf(folder: PrivateFolder, options: PostfixOptions): string {
  const parameters: Record<string, string> = {
    compatibility_level: '3.6',
    queue_directory: folder.join('queue'),
    data_directory: folder.join('data'),
    maillog_file: folder.join('mail.log'),
    maillog_file_prefixes: folder.path,
    myhostname: options.hostname ?? 'mail.example.test',
    mydestination: '',
    alias_maps: '',
    alias_database: '',
    local_recipient_maps: '',
    inet_interfaces: '127.0.0.1',
    inet_protocols: 'ipv4',
    mynetworks: options.mynetworks ?? '127.0.0.0/8',
    biff: 'no',
    append_dot_mydomain: 'no',
    recipient_delimiter: '+',
    enable_long_queue_ids: 'yes',
    virtual_mailbox_domains: (options.domains ?? []).join(', '),
    virtual_mailbox_maps: `texthash:${folder.join('conf', 'mailboxes')}`,
    virtual_alias_maps: `texthash:${folder.join('conf', 'aliases')}`,
    virtual_transport: options.virtualTransport ?? 'discard:',
    transport_maps: `texthash:${folder.join('conf', 'transport')}`,
    default_transport: 'error:5.4.4 no route out of this test',
    relay_transport: 'error:5.4.4 no route out of this test',
    smtpd_authorized_xclient_hosts: '127.0.0.0/8',
    smtpd_relay_restrictions: 'permit_mynetworks, permit_sasl_authenticated, reject_unauth_destination',
    smtpd_recipient_restrictions: [
      'permit_mynetworks, permit_sasl_authenticated, reject_unauth_destination',
      ...policy(options, options.policyService),
    ].join(', '),
    smtpd_data_restrictions: policy(options, options.dataPolicyService).join(', '),
    smtpd_end_of_data_restrictions: policy(options, options.endOfDataPolicyService).join(', '),
    smtpd_milters: options.smtpdMilters ?? '',
    non_smtpd_milters: options.nonSmtpdMilters ?? '',
    milter_protocol: String(options.milterProtocol ?? 6),
    milter_default_action: options.milterDefaultAction ?? 'tempfail',
    smtpd_tls_security_level: 'none',
    smtp_tls_security_level: 'none',
    // What is deferred is tried again within a second or two, and mistakes are not punished with pauses.
    queue_run_delay: '1s',
    minimal_backoff_time: '1s',
    maximal_backoff_time: '2s',
    smtpd_error_sleep_time: '0',
    in_flow_delay: '0',
    postern_destination_concurrency_failed_cohort_limit: '10',
    // The outside world is not asked.
    ...(options.resolvConf === undefined
      ? { smtpd_peername_lookup: 'no', smtp_dns_support_level: 'disabled', smtp_host_lookup: 'native' }
      : {}),
    ...options.main,
  };
  return Object.entries(parameters)
    .map(([name, value]) => `${name} = ${value}\n`)
    .join('');
}

export function masterCf(options: PostfixOptions, ports: PostfixPorts): string {
  const listeners = [`127.0.0.1:${ports.smtp} inet n - n - - smtpd`];
  if (options.saslSocket !== undefined) {
    const restrictions = [...policy(options, options.submissionPolicyService, 'submission'), ...SASL_ONLY];
    listeners.push(
      `127.0.0.1:${ports.submission} inet n - n - - smtpd`,
      '  -o syslog_name=postfix/submission',
      '  -o smtpd_sasl_auth_enable=yes',
      '  -o smtpd_sasl_type=dovecot',
      `  -o smtpd_sasl_path=${options.saslSocket}`,
      '  -o smtpd_sasl_security_options=noanonymous',
      '  -o smtpd_tls_auth_only=no',
      '  -o milter_macro_daemon_name=ORIGINATING',
      '  -o { smtpd_relay_restrictions = permit_sasl_authenticated, reject }',
      `  -o { smtpd_recipient_restrictions = ${restrictions.join(', ')} }`,
    );
    if (options.submissionMilters !== undefined) {
      listeners.push(`  -o { smtpd_milters = ${options.submissionMilters} }`);
    }
    for (const [name, value] of Object.entries(options.submission ?? {})) {
      listeners.push(`  -o { ${name} = ${value} }`);
    }
  }
  return [...listeners, SERVICES.trim(), ...(options.master ?? []), ''].join('\n');
}

export function tables(options: PostfixOptions): Record<'mailboxes' | 'aliases' | 'transport', string> {
  const aliases = Object.entries(options.aliases ?? {}).map(
    ([from, to]) => `${from} ${typeof to === 'string' ? to : to.join(', ')}`,
  );
  const transports = Object.entries(options.transports ?? {}).map((entry) => entry.join(' '));
  return {
    mailboxes: lines((options.mailboxes ?? []).map((address) => `${address} 1`)),
    aliases: lines(aliases),
    transport: lines(transports),
  };
}

const SASL_ONLY = ['permit_sasl_authenticated', 'reject'];

function policy(options: PostfixOptions, service: string | undefined, context?: string): string[] {
  if (service === undefined) return [];
  const timeout = `timeout=${options.policyTimeout ?? '10s'}`;
  const attributes = [service, timeout, ...(context === undefined ? [] : [`policy_context=${context}`])];
  return [`check_policy_service { ${attributes.join(', ')} }`];
}

function lines(entries: readonly string[]): string {
  return entries.map((entry) => `${entry}\n`).join('');
}
