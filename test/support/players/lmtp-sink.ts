import { createServer, type Server, type Socket } from 'node:net';

export interface SunkMail {
  readonly from: string;
  readonly to: readonly string[];
  /** As it was sent, dots unstuffed. */
  readonly content: string;
}

/** Dovecot's side of LMTP: takes every message to everybody but those it refuses, and keeps it (or only counts, when asked to). */
export class LmtpSink implements AsyncDisposable {
  readonly #server: Server;
  readonly #keep: boolean;
  readonly #refuse: (recipient: string) => string | null;
  readonly #open = new Set<Socket>();
  readonly mails: SunkMail[] = [];
  count = 0;

  private constructor(server: Server, keep: boolean, refuse: (recipient: string) => string | null) {
    this.#server = server;
    this.#keep = keep;
    this.#refuse = refuse;
  }

  static async open(
    options: {
      readonly keep?: boolean;
      readonly refuse?: (recipient: string) => string | null;
      readonly port?: number;
    } = {},
  ): Promise<LmtpSink> {
    const server = createServer({ noDelay: true });
    const sink = new LmtpSink(server, options.keep ?? true, options.refuse ?? (() => null));
    server.on('connection', (socket) => sink.#talk(socket));
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(options.port ?? 0, '127.0.0.1', resolve);
    });
    return sink;
  }

  get port(): number {
    const address = this.#server.address();
    if (typeof address !== 'object' || address === null) throw new Error('not listening');
    return address.port;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#open) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #talk(socket: Socket): void {
    this.#open.add(socket);
    socket.once('close', () => this.#open.delete(socket));
    let held = '';
    let from = '';
    let to: string[] = [];
    let inData = false;
    /** Where the end of data can still be. */
    let searched = 0;
    const say = (...lines: string[]): void => {
      socket.write(`${lines.join('\r\n')}\r\n`);
    };
    socket.on('error', () => socket.destroy());
    say('220 sink ready');
    socket.on('data', (chunk: Buffer) => {
      held += chunk.toString('latin1');
      for (;;) {
        if (inData) {
          const end = held.startsWith('.\r\n') ? 0 : held.indexOf('\r\n.\r\n', searched);
          if (end === -1) {
            searched = Math.max(0, held.length - 4);
            return;
          }
          searched = 0;
          const content = held.slice(0, held.startsWith('.\r\n') ? 0 : end + 2);
          held = held.slice(held.startsWith('.\r\n') ? 3 : end + 5);
          inData = false;
          this.count += 1;
          if (this.#keep) this.mails.push({ from, to, content: content.replaceAll(/(^|\r\n)\.\./g, '$1.') });
          say(...to.map((recipient) => `250 2.0.0 ${recipient} 1aSUNK Saved`));
          to = [];
          continue;
        }
        const end = held.indexOf('\r\n');
        if (end === -1) return;
        const line = held.slice(0, end);
        held = held.slice(end + 2);
        const verb = line.slice(0, 4).toUpperCase();
        const path = /<[^>]*>/.exec(line)?.[0] ?? '';
        switch (verb) {
          case 'LHLO':
            say('250-sink', '250-8BITMIME', '250-ENHANCEDSTATUSCODES', '250 PIPELINING');
            break;
          case 'MAIL':
            from = path;
            to = [];
            say('250 2.1.0 OK');
            break;
          case 'RCPT': {
            const refusal = this.#refuse(path);
            if (refusal === null) to.push(path);
            say(refusal ?? '250 2.1.5 OK');
            break;
          }
          case 'DATA':
            inData = to.length > 0;
            say(inData ? '354 OK' : '503 5.5.0 No valid recipients');
            break;
          case 'QUIT':
            say('221 2.0.0 Bye');
            socket.end();
            break;
          case 'RSET':
            to = [];
            say('250 2.0.0 OK');
            break;
          default:
            say('500 5.5.1 Unknown command');
        }
      }
    });
  }
}
