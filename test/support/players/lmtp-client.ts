import type { Socket } from 'node:net';

import { dial, Inbox, type Target } from './dial.ts';

export interface LmtpMail {
  /** With brackets. */
  readonly from: string;
  readonly to: readonly string[];
  /** Lines end in CRLF. */
  readonly content: Uint8Array;
  /** XFORWARD attributes; sent when the server offers them. */
  readonly forward?: Readonly<Record<string, string>>;
}

export interface LmtpOutcome {
  /** Reply to each RCPT, in order. */
  readonly recipients: readonly string[];
  /** Reply for each accepted recipient after the dot, in order. */
  readonly delivered: readonly string[];
}

/** Postfix's lmtp(8): MAIL, RCPT and DATA in one segment where PIPELINING is offered, one reply awaited for each accepted recipient. */
export class LmtpClient implements AsyncDisposable {
  readonly #socket: Socket;
  readonly #inbox: Inbox;
  #offers: readonly string[] = [];
  #last: { readonly content: Uint8Array; readonly stuffed: Buffer } | null = null;

  private constructor(socket: Socket) {
    this.#socket = socket;
    this.#inbox = new Inbox(socket);
  }

  static async open(target: Target, name = 'mx.example.org'): Promise<LmtpClient> {
    const client = new LmtpClient(await dial(target));
    await client.#reply();
    client.#socket.write(`LHLO ${name}\r\n`);
    client.#offers = (await client.#reply()).split('\r\n').map((line) => line.slice(4).toUpperCase());
    return client;
  }

  get offers(): readonly string[] {
    return this.#offers;
  }

  async send(mail: LmtpMail): Promise<LmtpOutcome> {
    if (mail.forward !== undefined && this.#offers.some((offer) => offer.startsWith('XFORWARD'))) {
      const text = Object.entries(mail.forward)
        .map(([name, value]) => `${name}=${value}`)
        .join(' ');
      this.#socket.write(`XFORWARD ${text}\r\n`);
      await this.#reply();
    }
    const size = this.#offers.some((offer) => offer.startsWith('SIZE')) ? ` SIZE=${mail.content.length}` : '';
    this.#socket.write(
      `MAIL FROM:${mail.from}${size}\r\n${mail.to.map((to) => `RCPT TO:${to}\r\n`).join('')}DATA\r\n`,
    );
    const sender = await this.#reply();
    const recipients: string[] = [];
    for (const _ of mail.to) recipients.push(await this.#reply());
    const go = await this.#reply();
    if (!go.startsWith('354')) {
      return {
        recipients: sender.startsWith('2') ? recipients : recipients.map(() => sender),
        delivered: [],
      };
    }
    this.#socket.write(this.#stuffed(mail.content));
    const delivered: string[] = [];
    for (const reply of recipients) if (reply.startsWith('2')) delivered.push(await this.#reply());
    return { recipients, delivered };
  }

  /** A load generator sends the same message over and over. */
  #stuffed(content: Uint8Array): Buffer {
    if (this.#last?.content !== content) this.#last = { content, stuffed: stuffed(content) };
    return this.#last.stuffed;
  }

  async quit(): Promise<void> {
    this.#socket.write('QUIT\r\n');
    await this.#reply();
    this.#socket.end();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#socket.destroy();
    await Promise.resolve();
  }

  async #reply(): Promise<string> {
    const reply = await this.#inbox.next((held) => {
      const text = held.toString('latin1');
      const whole = /^(?:\d{3}-[^\n]*\n)*\d{3}(?: [^\n]*)?\n/.exec(text)?.[0];
      return whole === undefined ? null : { value: whole.trimEnd(), used: whole.length };
    });
    if (reply === null) throw new Error('the LMTP server closed the connection');
    return reply;
  }
}

/** RFC 5321 §4.5.2, with the closing dot. */
function stuffed(content: Uint8Array): Buffer {
  const text = Buffer.from(content)
    .toString('latin1')
    .replaceAll(/(^|\r\n)\./g, '$1..');
  return Buffer.from(`${text}${text.endsWith('\r\n') ? '' : '\r\n'}.\r\n`, 'latin1');
}
