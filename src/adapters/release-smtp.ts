import { Readable } from 'node:stream';

import SMTPConnection from 'nodemailer/lib/smtp-connection';

import { NeighbourError } from '../ports/neighbour-error.ts';

export interface ReleaseOptions {
  readonly host: string;
  readonly port: number;
  /** Our name, for EHLO. */
  readonly hostname: string;
  /** The longest silence of the server. */
  readonly patienceMs: number;
}

/** A message to send, as latin1 and octets. */
export interface ReleasedMail {
  /** Empty: the null path. */
  readonly sender: string;
  readonly recipients: readonly string[];
  /** Above the content. */
  readonly field: string;
  readonly content: () => AsyncIterable<Uint8Array>;
}

export interface ReleaseReport {
  readonly accepted: readonly string[];
  /** Why each of the others was not. */
  readonly refused: ReadonlyMap<string, string>;
}

/** RFC 5321 §4.5.3.1.8 wants 100 at least; smtpd_recipient_limit is 1,000. */
const RECIPIENTS_AT_ONCE = 100;
const RESPONSE_LIMIT = 65_536;

/**
 * Sends a message as it is. Recipients that the server has taken are told even when a later part of them fails: what nobody has taken stays
 * where it is.
 *
 * @throws {NeighbourError} when not a single one was taken, for want of a server or an answer
 */
export async function releaseBySmtp(mail: ReleasedMail, options: ReleaseOptions): Promise<ReleaseReport> {
  const accepted: string[] = [];
  const refused = new Map<string, string>();
  for (let at = 0; at < mail.recipients.length; at += RECIPIENTS_AT_ONCE) {
    const part = mail.recipients.slice(at, at + RECIPIENTS_AT_ONCE);
    try {
      const report = await transfer({ ...mail, recipients: part }, options);
      accepted.push(...report.accepted);
      for (const [recipient, why] of report.refused) refused.set(recipient, why);
    } catch (error) {
      if (accepted.length === 0) {
        throw new NeighbourError(`${options.host}:${options.port} did not take the message`, {
          cause: error,
        });
      }
      const why = error instanceof Error ? error.message : 'not taken';
      for (const recipient of mail.recipients.slice(at)) refused.set(recipient, why);
      break;
    }
  }
  return { accepted, refused };
}

function transfer(mail: ReleasedMail, options: ReleaseOptions): Promise<ReleaseReport> {
  const { host, port, hostname, patienceMs } = options;
  const connection = new SMTPConnection({
    host,
    port,
    name: hostname,
    // Within this host, or to a listener that the operator named for it.
    ignoreTLS: true,
    connectionTimeout: patienceMs,
    greetingTimeout: patienceMs,
    socketTimeout: patienceMs,
    maxResponseSize: RESPONSE_LIMIT,
  });
  const recipients = new Map(mail.recipients.map((recipient) => [wire(recipient), recipient]));
  const { promise, resolve, reject } = Promise.withResolvers<ReleaseReport>();
  connection.on('error', reject);
  connection.once('end', () => reject(new Error('the connection was closed')));
  connection.connect(() => {
    const beyondAscii = [mail.sender, ...mail.recipients].some((address) => /[^\0-\x7f]/.test(address));
    const envelope = {
      from: wire(mail.sender),
      to: [...recipients.keys()],
      use8BitMime: true,
      ...(beyondAscii ? { smtpUtf8: true } : {}),
    };
    connection.send(envelope, Readable.from(whole(mail), { objectMode: false }), (error, sent) => {
      connection.quit();
      if (error !== null) {
        reject(error);
        return;
      }
      const refused = new Map<string, string>();
      for (const { recipient = '', message } of sent.rejectedErrors ?? []) {
        refused.set(recipients.get(recipient) ?? recipient, message);
      }
      const accepted = sent.accepted.map((recipient) => recipients.get(recipient) ?? recipient);
      resolve({ accepted, refused });
    });
  });
  return promise.finally(() => connection.close());
}

async function* whole({ field, content }: ReleasedMail): AsyncGenerator<Uint8Array> {
  yield Buffer.from(field, 'latin1');
  yield* content();
}

/** nodemailer writes UTF-8. */
function wire(address: string): string {
  return Buffer.from(address, 'latin1').toString('utf8');
}
