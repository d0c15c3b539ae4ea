import { createServer, type Server, type Socket } from 'node:net';

/** Where in a dialogue something happens. */
export type Step =
  'greeting' | 'LHLO' | 'STARTTLS' | 'MAIL' | 'RCPT' | 'DATA' | 'content' | 'dot' | 'RSET' | 'NOOP' | 'QUIT';

/** What is sent at a step in place of the usual reply, and what becomes of the connection then. */
export interface Answer {
  /** With line ends; default: the usual reply. */
  readonly text?: string;
  /** `hang`: nothing more is read or said. Default: it goes on. */
  readonly after?: 'close' | 'reset' | 'hang';
}

export interface StepContext {
  readonly step: Step;
  /** Argument of the command; recipients in order, at the dot. */
  readonly argument: string;
  /** Connections before this one. */
  readonly connection: number;
  /** Transactions before this one, on all connections. */
  readonly transaction: number;
  readonly recipients: readonly string[];
}

export interface StoredMail {
  readonly connection: number;
  readonly from: string;
  /** The whole MAIL line. */
  readonly mail: string;
  readonly to: readonly string[];
  /** Octets between 354 and the end that Dovecot 2.3 sees, that end included. */
  readonly wire: string;
  /** Unstuffed. */
  readonly content: string;
}

/** Dovecot 2.3's LMTP as it was recorded: its words, its refusals, and its readiness to end a message at LF.LF. */
export class FakeDovecot implements AsyncDisposable {
  readonly #server: Server;
  readonly #open = new Set<Socket>();
  /** Everything that was stored, in order. */
  readonly mails: StoredMail[] = [];
  /** Every command line of every connection, in order. */
  readonly commands: string[] = [];
  /** Recipients that are refused at RCPT, with what is said. */
  readonly refused = new Map<string, string>();
  /** Recipients whose mail can't be stored, with what is said after the dot. */
  readonly full = new Map<string, string>();
  capabilities = ['8BITMIME', 'CHUNKING', 'ENHANCEDSTATUSCODES', 'PIPELINING', 'STARTTLS'];
  /** Octets written at once; 0: all. */
  pieces = 0;
  fault: (context: StepContext) => Answer | null = () => null;
  connections = 0;
  transactions = 0;
  readonly #closed = new Set<() => void>();

  private constructor(server: Server) {
    this.#server = server;
  }

  static async open(): Promise<FakeDovecot> {
    const server = createServer({ noDelay: true });
    const fake = new FakeDovecot(server);
    server.on('connection', (socket) => new Dialogue(fake, socket, fake.#open, fake.#closed));
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return fake;
  }

  get port(): number {
    const address = this.#server.address();
    if (typeof address !== 'object' || address === null) throw new Error('not listening');
    return address.port;
  }

  get openConnections(): number {
    return this.#open.size;
  }

  /** Resolves when a connection closes next. */
  closed(): Promise<void> {
    return new Promise((resolve) => this.#closed.add(resolve));
  }

  closeAll(): void {
    for (const socket of this.#open) socket.destroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.closeAll();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

class Dialogue {
  readonly #fake: FakeDovecot;
  readonly #socket: Socket;
  readonly #number: number;
  #held = '';
  #from: string | null = null;
  #mail = '';
  #to: string[] = [];
  #inData = false;
  #dead = false;
  #contentSeen = false;

  constructor(fake: FakeDovecot, socket: Socket, open: Set<Socket>, closed: Set<() => void>) {
    this.#fake = fake;
    this.#socket = socket;
    this.#number = fake.connections++;
    open.add(socket);
    socket.on('error', () => socket.destroy());
    socket.on('close', () => {
      open.delete(socket);
      for (const told of closed) told();
      closed.clear();
    });
    this.#say('greeting', '', '220 delphos.olimpus.local Dovecot (Debian) ready.\r\n');
    socket.on('data', (piece: Buffer) => {
      if (this.#dead) return;
      this.#held += piece.toString('latin1');
      while (!this.#dead && this.#step());
    });
  }

  #step(): boolean {
    if (this.#inData) return this.#content();
    const end = this.#held.indexOf('\n');
    if (end === -1) return false;
    const line = this.#held.slice(0, end).replace(/\r$/, '');
    this.#held = this.#held.slice(end + 1);
    this.#fake.commands.push(line);
    this.#command(line);
    return true;
  }

  #command(line: string): void {
    const verb = line.slice(0, 4).toUpperCase();
    const path = /<(?:"(?:[^"\\]|\\.)*"|[^>"])*>/.exec(line)?.[0] ?? '';
    switch (verb) {
      case 'LHLO': {
        const lines = ['delphos.olimpus.local', ...this.#fake.capabilities];
        const text = lines.map((word, i) => `250${i === lines.length - 1 ? ' ' : '-'}${word}\r\n`).join('');
        this.#say('LHLO', line, text);
        break;
      }
      case 'STAR':
        this.#say('STARTTLS', line, '454 4.7.0 TLS is not for this one\r\n');
        break;
      case 'MAIL': {
        const known = new Set(['BODY', ...this.#fake.capabilities]);
        const parameters = line
          .slice('MAIL FROM:'.length + path.length)
          .trim()
          .split(' ')
          .filter((word) => word !== '');
        if (parameters.some((word) => !known.has((word.split('=')[0] ?? '').toUpperCase()))) {
          this.#say('MAIL', line, '555 5.5.4 Unsupported parameters\r\n');
        } else if (this.#from !== null) {
          this.#say('MAIL', line, '503 5.5.0 MAIL already given\r\n');
        } else {
          const said = this.#say('MAIL', line, '250 2.1.0 OK\r\n');
          if (!said.startsWith('2')) break;
          this.#from = path;
          this.#mail = line;
          this.#to = [];
        }
        break;
      }
      case 'RCPT': {
        if (this.#from === null) {
          this.#say('RCPT', path, '503 5.5.0 MAIL needed first\r\n');
          break;
        }
        const refusal = this.#fake.refused.get(path);
        const said = this.#say('RCPT', path, refusal === undefined ? '250 2.1.5 OK\r\n' : `${refusal}\r\n`);
        if (said.startsWith('2')) this.#to.push(path);
        break;
      }
      case 'DATA':
        if (this.#to.length === 0) {
          this.#say('DATA', '', '503 5.5.0 No valid recipients\r\n');
        } else {
          const said = this.#say('DATA', '', '354 OK\r\n');
          this.#inData = said.startsWith('354');
          this.#contentSeen = false;
        }
        break;
      case 'RSET':
        this.#from = null;
        this.#to = [];
        this.#say('RSET', '', '250 2.0.0 OK\r\n');
        break;
      case 'NOOP':
        this.#say('NOOP', '', '250 2.0.0 OK\r\n');
        break;
      case 'QUIT':
        this.#say('QUIT', '', '221 2.0.0 Bye\r\n');
        this.#socket.end();
        break;
      default:
        this.#write('500 5.5.1 Unknown command\r\n');
    }
  }

  #content(): boolean {
    if (this.#held === '') return false;
    if (!this.#contentSeen) {
      this.#contentSeen = true;
      this.#say('content', '', '');
      if (this.#dead) return false;
    }
    const end = lenientEnd(this.#held);
    if (end === -1) return false;
    const wire = this.#held.slice(0, end);
    this.#held = this.#held.slice(end);
    this.#inData = false;
    const stored = this.#to.filter((path) => !this.#fake.full.has(path));
    const replies = this.#to.map(
      (path, i) =>
        `${this.#fake.full.get(path) ?? `250 2.0.0 ${path} kMpbMDdUAWueEwAApsd9UA${i === 0 ? '' : `:R${i + 1}`} Saved`}\r\n`,
    );
    this.#fake.mails.push({
      connection: this.#number,
      from: this.#from ?? '',
      mail: this.#mail,
      to: stored,
      wire,
      content: lenientContent(wire),
    });
    this.#say('dot', this.#to.join(' '), replies.join(''));
    this.#fake.transactions += 1;
    this.#from = null;
    this.#to = [];
    return true;
  }

  /** What was really said. */
  #say(step: Step, argument: string, usual: string): string {
    const { fault, transactions } = this.#fake;
    const answer = fault({
      step,
      argument,
      connection: this.#number,
      transaction: transactions,
      recipients: this.#to,
    });
    const text = answer?.text ?? (answer?.after === undefined ? usual : '');
    switch (answer?.after) {
      case undefined:
        this.#write(text);
        break;
      case 'hang':
        this.#write(text);
        this.#dead = true;
        this.#socket.pause();
        break;
      case 'close':
        this.#dead = true;
        this.#socket.end(text, 'latin1');
        break;
      case 'reset':
        this.#dead = true;
        this.#socket.write(text, 'latin1', () => this.#socket.resetAndDestroy());
        break;
    }
    return text;
  }

  #write(text: string): void {
    if (this.#fake.pieces === 0) {
      if (text !== '') this.#socket.write(text, 'latin1');
      return;
    }
    for (let i = 0; i < text.length; i += this.#fake.pieces) {
      this.#socket.write(text.slice(i, i + this.#fake.pieces), 'latin1');
    }
  }
}

/** Index behind the end of the message as Dovecot before 2.4 sees it: CRLF.CRLF, LF.LF, CRLF.LF, LF.CRLF; -1: not yet. */
export function lenientEnd(octets: string): number {
  const match = /(?:^|\n)\.\r?\n/.exec(octets);
  return match === null ? -1 : match.index + match[0].length;
}

/** The same by RFC 5321 §4.1.1.4. */
export function strictEnd(octets: string): number {
  const match = /(?:^|\r\n)\.\r\n/.exec(octets);
  return match === null ? -1 : match.index + match[0].length;
}

export function lenientContent(wire: string): string {
  return wire.replace(/\.\r?\n$/, '').replaceAll(/(^|\n)\./g, '$1');
}

export function strictContent(wire: string): string {
  return wire.replace(/\.\r\n$/, '').replaceAll(/(^|\r\n)\./g, '$1');
}
