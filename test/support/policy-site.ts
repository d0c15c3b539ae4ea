import { startBind, type Bind, type BindOptions } from './neighbours/bind.ts';
import { startDovecot, type Dovecot } from './neighbours/dovecot.ts';
import { startPostfix, type Postfix, type PostfixOptions } from './neighbours/postfix.ts';
import { sendMail, SmtpClient, type Mail, type MailReplies, type Xclient } from './neighbours/smtp-client.ts';
import { preparePostern, type Postern, type PosternProcess } from './postern.ts';

/**
 * A host for tests of policyd: a real Postfix that asks a real `postern run policyd`, which asks a real name server. What is accepted is discarded. (All three
 * daemons with delivery to Dovecot: startSite in site.ts.)
 *
 *     await using site = await startPolicySite({
 *       config: '[checks.greylist]\nenabled = true\n',
 *       zones: { 'valhalla.example': '@ TXT "v=spf1 ip4:192.0.2.20 -all"' },
 *     });
 *     const { rcpt } = await site.send({ client: ODIN, from: 'odin@valhalla.example', to: ['zeus@olimpus.example'] });
 *     expect(rcpt[0]).toMatchObject({ code: 450, enhanced: '4.7.1' });
 *
 * Port 25 asks about every recipient, as `postern wire postfix` says; who may relay is for smtpd_relay_restrictions. The client plays any host (XCLIENT);
 * one that does not is 127.0.0.1, which Postfix and Postern take for their own. Every address in `domains` exists.
 */

const DOMAINS: readonly string[] = ['olimpus.example', 'asgard.example'];

export interface PolicySiteOptions {
  /** postern.toml below the keys that the site sets itself; keys of `[site]` as dotted keys at its top: `site.own_networks = […]`. */
  readonly config?: string;
  /** Zones by name in master file syntax (see startBind). Every other name does not exist. */
  readonly zones?: Readonly<Record<string, string>>;
  /** Zones that the name server is asked for in vain: no answer comes, or SERVFAIL after a while. */
  readonly unreachable?: readonly string[];
  /** Domains of this host; every address in them exists. Default: DOMAINS. */
  readonly domains?: readonly string[];
  /** Logins with their passwords: a real Dovecot, and a submission port that asks policyd too, with policy_context=submission. */
  readonly users?: Readonly<Record<string, string>>;
  /** Further restriction lists of both ports that ask. */
  readonly alsoAt?: readonly ('data' | 'end-of-data')[];
  /** policy_context of port 25. */
  readonly context?: string;
  /** Further parameters of main.cf, given the words that ask policyd (`check_policy_service { … }`). */
  readonly main?: (check: string) => Readonly<Record<string, string>>;
  /** Anything else of Postfix. */
  readonly postfix?: PostfixOptions;
}

/** One message in a session of its own. */
export interface PolicyMail {
  /** The host that sends; null: this one, 127.0.0.1. */
  readonly client?: Xclient | null;
  readonly from: string;
  readonly to: readonly string[];
  /** Default: a short letter. */
  readonly data?: Mail['data'];
  /** Through the submission port, as one of `users`. */
  readonly login?: string;
  /** In place of the client's. */
  readonly helo?: string;
  readonly mailParameters?: readonly string[];
}

export interface PolicySite extends AsyncDisposable {
  readonly postfix: Postfix;
  readonly bind: Bind;
  readonly postern: Postern;
  /** null without `users`. */
  readonly dovecot: Dovecot | null;
  /** The policyd that runs now. */
  readonly policyd: PosternProcess;
  /** Sends one message and tells every reply; refusals are replies, not exceptions. */
  send(mail: PolicyMail): Promise<MailReplies>;
  /** A session on port 25, for dialogues that `send` does not have; XCLIENT and EHLO are done when a client is given. */
  dial(client?: Xclient): Promise<SmtpClient>;
  /** Other configuration in place of `config`, taken over by SIGHUP. */
  reload(config: string): Promise<void>;
  /** Stops policyd and starts it again, with its state as it was; `config` in place of the one it had. */
  restart(config?: string): Promise<void>;
}

export const LETTER = [
  'From: Odin <odin@valhalla.example>',
  'To: zeus@olimpus.example',
  'Subject: greetings',
  'Date: Sat, 21 Nov 2026 09:00:00 +0000',
  '',
  'Hello from the other side.',
  '',
].join('\r\n');

export async function startPolicySite(options: PolicySiteOptions = {}): Promise<PolicySite> {
  await using cleanup = new AsyncDisposableStack();
  const { users, domains = DOMAINS } = options;
  const [bind, dovecot] = await Promise.all([
    startBind(zonesOf(options)),
    users === undefined ? null : startDovecot({ users }),
  ]);
  cleanup.use(bind);
  if (dovecot !== null) cleanup.use(dovecot);
  const postern = cleanup.use(await preparePostern({ dnsPort: bind.port, config: options.config ?? '' }));
  let policyd = await postern.start('policyd');

  const service = postern.address.policyd;
  const check = checkFor(service, options.context);
  const submissionCheck = checkFor(service, 'submission');
  const alsoAt = (words: string): Record<string, string> => ({
    smtpd_data_restrictions: options.alsoAt?.includes('data') === true ? words : '',
    smtpd_end_of_data_restrictions: options.alsoAt?.includes('end-of-data') === true ? words : '',
  });
  const postfix = cleanup.use(
    await startPostfix({
      hostname: 'mx.olimpus.example',
      domains,
      mailboxes: domains.map((domain) => `@${domain}`),
      ...(dovecot === null
        ? {}
        : {
            saslSocket: dovecot.authSocket,
            submission: {
              ...alsoAt(submissionCheck),
              smtpd_recipient_restrictions: `${submissionCheck}, permit_sasl_authenticated, reject`,
            },
          }),
      ...options.postfix,
      main: {
        smtpd_recipient_restrictions: `reject_unlisted_recipient, ${check}`,
        ...alsoAt(check),
        // What logins send to the world outside is gone, too.
        default_transport: 'discard:',
        // Tests that send much at once are after our limits, not Postfix's.
        smtpd_client_connection_count_limit: '0',
        ...options.postfix?.main,
        ...options.main?.(check),
      },
    }),
  );

  const start = async (): Promise<void> => {
    policyd = await postern.start('policyd');
  };
  const stack = cleanup.move();
  return {
    postfix,
    bind,
    postern,
    dovecot,
    get policyd() {
      return policyd;
    },
    send({ client = null, login, data = LETTER, helo, mailParameters, from, to }) {
      const password = login === undefined ? undefined : users?.[login];
      if (login !== undefined && password === undefined) throw new Error(`the site has no login ${login}`);
      return sendMail({
        port: login === undefined ? postfix.smtpPort : postfix.submissionPort,
        from,
        to,
        data,
        ...(client === null ? {} : { xclient: client }),
        ...(login === undefined || password === undefined ? {} : { auth: { user: login, password } }),
        ...(helo === undefined ? {} : { helo }),
        ...(mailParameters === undefined ? {} : { mailParameters }),
      });
    },
    async dial(client) {
      const connection = await SmtpClient.connect({ host: postfix.host, port: postfix.smtpPort });
      const helo = client?.helo ?? 'client.example';
      await connection.ehlo(helo);
      if (client !== undefined) {
        await connection.xclient(client);
        await connection.ehlo(helo);
      }
      return connection;
    },
    async reload(config) {
      await postern.configure(config);
      const after = policyd.log.mark();
      policyd.signal('SIGHUP');
      await policyd.waitForLog(/"msg":"reloaded"/, { after });
    },
    async restart(config) {
      const code = await policyd.stop();
      if (code !== 0) throw new Error(`policyd ended with ${code}`);
      if (config !== undefined) await postern.configure(config);
      await start();
    },
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

function checkFor(service: string, context: string | undefined): string {
  const attributes = [
    service,
    'timeout=10s',
    ...(context === undefined ? [] : [`policy_context=${context}`]),
  ];
  return `check_policy_service { ${attributes.join(', ')} }`;
}

/** named passes on what is delegated and has forwarders; nobody is at theirs. */
function zonesOf({ zones = {}, unreachable = [] }: PolicySiteOptions): BindOptions {
  if (unreachable.length === 0) return { zones };
  const root = ['ns.invalid. A 127.0.0.1', ...unreachable.map((zone) => `${zone}. NS ns.invalid.`)];
  const forwarded = unreachable.map(
    (zone) => `zone "${zone}" { type forward; forward only; forwarders { 127.0.0.1 port 9; }; };`,
  );
  return { zones: { '.': root.join('\n'), ...zones }, extra: forwarded.join('\n') };
}
