import { connect, createServer, type Socket } from 'node:net';

/**
 * Where in an LMTP dialogue something is. What a client says is told before it is passed on, but `dotted`: the end of a message is on its
 * way to the server. `saved`: the server has answered to it; `told`: the client has its answer.
 */
export const TAP_STEPS = [
  'connect',
  'LHLO',
  'MAIL',
  'RCPT',
  'DATA',
  'content',
  'dot',
  'dotted',
  'saved',
  'told',
] as const;

export type TapStep = (typeof TAP_STEPS)[number];

/** A message that was sent to its end, whose sender may not know yet what became of it. */
export interface InDoubt {
  readonly subject: string;
  readonly recipients: readonly string[];
}

export interface LmtpTap extends AsyncDisposable {
  readonly port: number;
  /** Called at each step of every connection, before anything else happens. */
  onStep: (step: TapStep) => void;
  /**
   * Tells what is in doubt when one of the ends dies now: what was sent to its end already, and what is on its way from a client that is no
   * more.
   */
  doubts(told: (doubt: InDoubt) => void): void;
}

/** Stands between an LMTP client and a server, passes everything on, and tells where they are. @param target the server's socket */
export async function startLmtpTap(target: string): Promise<LmtpTap> {
  const dialogues = new Set<Dialogue>();
  const server = createServer({ noDelay: true }, (socket) => {
    const dialogue = new Dialogue(socket, target, (step) => tap.onStep(step));
    dialogues.add(dialogue);
    socket.on('close', () => dialogues.delete(dialogue));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  if (typeof address !== 'object' || address === null) throw new Error('not listening');
  const tap: LmtpTap = {
    port: address.port,
    onStep: () => {},
    doubts(told) {
      for (const dialogue of dialogues) dialogue.doubts(told);
    },
    async [Symbol.asyncDispose]() {
      const closed = new Promise((resolve) => server.close(resolve));
      for (const dialogue of dialogues) dialogue.end();
      await closed;
    },
  };
  return tap;
}

const DOT = '\r\n.\r\n';

class Dialogue {
  readonly #client: Socket;
  readonly #server: Socket;
  readonly #step: (step: TapStep) => void;
  #state: 'commands' | 'content' | 'settling' = 'commands';
  #awaiting354 = false;
  /** What may belong to something that is not whole yet. */
  #held = '';
  #head = '';
  #recipients: string[] = [];
  #told: (doubt: InDoubt) => void = () => {};

  constructor(client: Socket, target: string, step: (step: TapStep) => void) {
    this.#client = client;
    this.#step = step;
    step('connect');
    this.#server = connect({ path: target });
    for (const [one, other] of [
      [client, this.#server],
      [this.#server, client],
    ] as const) {
      // A connection that breaks ends the other one; nothing else is to be told.
      one.on('error', () => one.destroy());
      one.on('close', () => other.destroy());
      one.on('end', () => other.end());
      other.on('drain', () => one.resume());
    }
    client.on('data', (piece: Buffer) => this.#said(piece));
    this.#server.on('data', (piece: Buffer) => this.#answered(piece));
  }

  doubts(told: (doubt: InDoubt) => void): void {
    if (this.#state === 'settling') told(this.#message());
    else this.#told = told;
  }

  #message(): InDoubt {
    return { subject: /^Subject: (.*)\r$/m.exec(this.#head)?.[1] ?? '', recipients: this.#recipients };
  }

  end(): void {
    this.#client.destroy();
    this.#server.destroy();
  }

  #said(piece: Buffer): void {
    const text = piece.toString('latin1');
    const ended = this.#state === 'content' ? this.#content(text) : this.#commands(text);
    if (!this.#server.destroyed && !this.#server.write(piece)) this.#client.pause();
    if (ended) this.#step('dotted');
  }

  #commands(text: string): boolean {
    const lines = (this.#held + text).split('\r\n');
    this.#held = lines.pop() ?? '';
    for (const line of lines) {
      const verb = line.slice(0, 4).toUpperCase();
      this.#state = 'commands';
      if (verb === 'MAIL') {
        this.#recipients = [];
        this.#head = '';
      }
      if (verb === 'RCPT') this.#recipients.push(/<(.*?)>/.exec(line)?.[1] ?? '');
      if (verb === 'DATA') this.#awaiting354 = true;
      if (verb === 'LHLO' || verb === 'MAIL' || verb === 'RCPT' || verb === 'DATA') this.#step(verb);
    }
    return false;
  }

  #content(text: string): boolean {
    if (this.#head === '') this.#step('content');
    if (this.#head.length < 4096) this.#head += text;
    const ended = (this.#held + text).endsWith(DOT);
    this.#held = (this.#held + text).slice(-DOT.length);
    if (!ended) return false;
    this.#step('dot');
    this.#state = 'settling';
    this.#held = '';
    this.#told(this.#message());
    return true;
  }

  #answered(piece: Buffer): void {
    const settling = this.#state === 'settling';
    if (settling) this.#step('saved');
    if (this.#awaiting354) {
      this.#awaiting354 = false;
      if (piece.toString('latin1').startsWith('354')) this.#state = 'content';
    }
    if (!this.#client.destroyed && !this.#client.write(piece)) this.#server.pause();
    if (settling) this.#step('told');
  }
}
