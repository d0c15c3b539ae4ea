import { Socket } from 'node:net';

/** The longest answer to one question: far more than a thousand rows of a directory. */
const ANSWER_OCTETS_LIMIT = 4 * 1024 * 1024;

/** A socket that is destroyed when an answer grows too long: what a client library gathers of it has no bound of its own. */
export class CountedSocket {
  readonly socket = new Socket();
  readonly #limit: number;
  #octets = 0;

  /** @param counts whether what comes is seen here; behind TLS it is not, and comes from a server that proved who it is */
  constructor(counts: boolean, limit = ANSWER_OCTETS_LIMIT) {
    this.#limit = limit;
    this.socket.setNoDelay(true);
    // The client library tells of errors; a socket that nobody listens to any more must not end the process.
    this.socket.on('error', () => {});
    if (counts) this.socket.on('data', (chunk: Buffer) => this.#count(chunk.length));
  }

  /** A new question. */
  begin(): void {
    this.#octets = 0;
  }

  #count(octets: number): void {
    this.#octets += octets;
    if (this.#octets > this.#limit)
      this.socket.destroy(new Error(`the answer is longer than ${this.#limit} octets`));
  }
}
