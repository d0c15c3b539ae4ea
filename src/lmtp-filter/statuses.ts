/**
 * The replies after the dot: one for each accepted RCPT, in their order, each sent as soon as those before it are known. RFC 2033 §4.2.
 *
 * Postfix counts replies and takes whatever comes next, `221` to its QUIT even, for the last recipient's success when one is missing.
 */
export class Statuses {
  readonly #replies: (string | null)[];
  readonly #send: (text: string) => boolean;
  #sent = 0;
  #reached = 0;

  /** `send` gets one or more whole replies, with their line ends; false when there is nobody to send them to. */
  constructor(count: number, send: (text: string) => boolean) {
    this.#replies = Array.from({ length: count }, () => null);
    this.#send = send;
  }

  /** Whether every reply is known, and so sent. */
  get complete(): boolean {
    return this.#sent === this.#replies.length;
  }

  /** So many replies, from the first, were sent to a client that was there. */
  get reached(): number {
    return this.#reached;
  }

  /** The reply of a position; null as long as it is not known. */
  replyAt(position: number): string | null {
    return this.#replies[position] ?? null;
  }

  isOpen(position: number): boolean {
    return this.#replies[position] === null;
  }

  /** `reply`: without the closing line end. A position that has its reply keeps it; false then. */
  settle(position: number, reply: string): boolean {
    if (!this.isOpen(position)) return false;
    this.#replies[position] = reply;
    let text = '';
    for (let next = this.#replies[this.#sent]; typeof next === 'string'; next = this.#replies[this.#sent]) {
      text += `${next}\r\n`;
      this.#sent += 1;
    }
    if (text !== '' && this.#send(text)) this.#reached = this.#sent;
    return true;
  }

  /** The same reply for every position that has none. */
  settleAll(reply: string): void {
    for (let position = 0; position < this.#replies.length; position++) this.settle(position, reply);
  }
}
