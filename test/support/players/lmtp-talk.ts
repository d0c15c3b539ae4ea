import type { Socket } from 'node:net';

import { dial, Inbox, type Target } from './dial.ts';

/** An LMTP client that sends what it is told, octet by octet if need be, and hands out one reply at a time. */
export class LmtpTalk implements AsyncDisposable {
  readonly socket: Socket;
  readonly #inbox: Inbox;

  private constructor(socket: Socket) {
    this.socket = socket;
    this.#inbox = new Inbox(socket);
  }

  /** Connects; the greeting is the first reply. */
  static async open(target: Target): Promise<LmtpTalk> {
    return new LmtpTalk(await dial(target));
  }

  /** Connects, takes the greeting and says LHLO. */
  static async introduced(target: Target): Promise<LmtpTalk> {
    const talk = await LmtpTalk.open(target);
    await talk.reply();
    await talk.ask('LHLO mx.example.org');
    return talk;
  }

  send(octets: string): void {
    this.socket.write(octets, 'latin1');
  }

  /** The same; resolves when the kernel has it, so that what is sent next comes in a packet of its own. */
  async sendApart(octets: string): Promise<void> {
    await new Promise((resolve) => this.socket.write(octets, 'latin1', resolve));
  }

  async ask(line: string): Promise<string> {
    this.send(`${line}\r\n`);
    return await this.reply();
  }

  /** One reply, its lines joined by LF; null when the server closed instead. */
  async replyOrEnd(): Promise<string | null> {
    return await this.#inbox.next((held) => {
      const text = held.toString('latin1');
      const whole = /^(?:\d{3}-[^\n]*\r\n)*\d{3}(?: [^\n]*)?\r\n/.exec(text)?.[0];
      if (whole !== undefined) return { value: whole.trimEnd().replaceAll('\r\n', '\n'), used: whole.length };
      const line = text.indexOf('\n');
      if (line !== -1 && !/^\d{3}-/.test(text)) throw new Error(`no reply: ${JSON.stringify(text)}`);
      return null;
    });
  }

  async reply(): Promise<string> {
    const reply = await this.replyOrEnd();
    if (reply === null) throw new Error('the server closed the connection');
    return reply;
  }

  async replies(count: number): Promise<string[]> {
    const replies: string[] = [];
    for (let i = 0; i < count; i++) replies.push(await this.reply());
    return replies;
  }

  /** All replies until the server closes. */
  async rest(): Promise<string[]> {
    const replies: string[] = [];
    for (let reply = await this.replyOrEnd(); reply !== null; reply = await this.replyOrEnd())
      replies.push(reply);
    return replies;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.socket.destroy();
    await Promise.resolve();
  }
}
