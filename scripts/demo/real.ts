import { startDovecot, type Dovecot } from '../../test/support/neighbours/dovecot.ts';
import { startPostfix, type Postfix } from '../../test/support/neighbours/postfix.ts';
import { sendMail } from '../../test/support/neighbours/smtp-client.ts';
import { startSpamd, type Spamd } from '../../test/support/neighbours/spamd.ts';
import type { Driver } from './driver.ts';
import { ALICE, BOB, CAROL, DOMAIN, OFFER, PASSWORD, type DemoMail } from './mails.ts';
import type { Stage } from './stage.ts';

const DELIVERY_DEADLINE_MS = 30_000;

/** Real Postfix, Dovecot and spamd, with folders and ports of their own. */
export async function startReal(say: (line: string) => void): Promise<Driver> {
  await using cleanup = new AsyncDisposableStack();
  say('starting a private Dovecot and spamd …');
  const [dovecot, spamd] = await Promise.all([
    startDovecot({ users: { [ALICE]: PASSWORD, [BOB]: PASSWORD, [CAROL]: PASSWORD } }),
    startSpamd({
      localCf: [
        `body DEMO_OFFER /${OFFER}/`,
        'describe DEMO_OFFER The demo wants this',
        'score DEMO_OFFER 6.0',
      ],
    }),
  ]);
  cleanup.use(dovecot);
  cleanup.use(spamd);
  return new RealDriver(dovecot, spamd, cleanup.move());
}

class RealDriver implements Driver {
  readonly #dovecot: Dovecot;
  readonly #spamd: Spamd;
  readonly #cleanup: AsyncDisposableStack;
  readonly #seen = new Map<string, number>();
  #postfix: Postfix | null = null;

  constructor(dovecot: Dovecot, spamd: Spamd, cleanup: AsyncDisposableStack) {
    this.#dovecot = dovecot;
    this.#spamd = spamd;
    this.#cleanup = cleanup;
  }

  get upstream(): number {
    return this.#dovecot.lmtpPort;
  }

  get spamd(): number {
    return this.#spamd.port;
  }

  async connect(stage: Stage): Promise<void> {
    const milter = `inet:127.0.0.1:${stage.port.milter}`;
    this.#postfix = this.#cleanup.use(
      await startPostfix({
        hostname: `mx.${DOMAIN}`,
        domains: [DOMAIN],
        mailboxes: [ALICE, BOB, CAROL],
        saslSocket: this.#dovecot.authSocket,
        policyService: `inet:127.0.0.1:${stage.port.policyd}`,
        smtpdMilters: milter,
        nonSmtpdMilters: milter,
        milterDefaultAction: 'tempfail',
        virtualTransport: `postern:inet:127.0.0.1:${stage.port['lmtp-filter']}`,
      }),
    );
  }

  async send(mail: DemoMail): Promise<readonly string[]> {
    const postfix = this.#running();
    const replies = await sendMail({
      from: mail.from,
      to: mail.to,
      data: mail.data,
      ...(mail.client === null
        ? { port: postfix.submissionPort, auth: { user: ALICE, password: PASSWORD } }
        : { port: postfix.smtpPort, xclient: mail.client }),
    });
    return [...new Set([...replies.rcpt, replies.outcome])].map(({ lines }) => lines.join(' / '));
  }

  async collect(recipient: string): Promise<string | null> {
    const wanted = (this.#seen.get(recipient) ?? 0) + 1;
    await this.#running().waitForQueueEmpty(DELIVERY_DEADLINE_MS);
    const messages = await this.#dovecot.mailbox(recipient);
    if (messages.length < wanted) return null;
    this.#seen.set(recipient, messages.length);
    return messages.at(-1)?.toString('latin1') ?? null;
  }

  how(): readonly string[] {
    const { smtpPort, submissionPort, configDirectory } = this.#running();
    return [
      'Send more, as a host outside would:',
      `   npm run send -- --port ${smtpPort} --client 192.0.2.25 --from friend@friend.example --to ${BOB} --subject Hello`,
      'with a login, which gets it signed:',
      `   npm run send -- --port ${submissionPort} --login ${ALICE}:${PASSWORD} --from ${ALICE} --to ${BOB}`,
      'or with sendmail:',
      `   printf 'Subject: hi\\n\\nhello\\n' | MAIL_CONFIG=${configDirectory} sendmail -f ${ALICE} ${BOB}`,
      `Read it over IMAP at 127.0.0.1:${this.#dovecot.imapPort}: ${BOB}, password ${PASSWORD}.`,
    ];
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#cleanup.disposeAsync();
  }

  #running(): Postfix {
    if (this.#postfix === null) throw new Error('Postfix is not started yet');
    return this.#postfix;
  }
}
