// Asks a policy server as Postfix's smtpd processes do, in a process of its own: a request on each connection, the next when it is answered.
//   node bench/policy-load.ts '{"port": 10040, …}'     prints one line of JSON
import { connect, type Socket } from 'node:net';

import { z } from 'zod';

const loadOptions = z.object({
  port: z.number(),
  connections: z.number(),
  /** Messages in all. */
  messages: z.number(),
  recipients: z.number(),
  /** Sets apart what one run calls its messages. */
  run: z.string(),
  /** Every message from a sender of its own. */
  newSenders: z.boolean(),
  /** What each answer has to begin with; a regular expression. */
  expect: z.string(),
  /** Ends earlier. */
  seconds: z.number(),
});

export type Load = Readonly<z.output<typeof loadOptions>>;

export const loaded = z.object({
  requests: z.number(),
  /** Answers that were not what is expected: a server that is asked too much may let pass what it could not look up in time. */
  unexpected: z.number(),
  seconds: z.number(),
  p50Ms: z.number(),
  p99Ms: z.number(),
  /** Share of the time that this process was at work: near 1, it was the bottleneck. */
  busy: z.number(),
});

export type Loaded = Readonly<z.output<typeof loaded>>;

const CLIENTS = 250;
const SENDERS = 1000;
const RECIPIENTS = 50;

/** The attributes of Postfix 3.7 at RCPT, in its order. */
function request(load: Load, message: number, recipient: number): Buffer {
  const sender = load.newSenders ? letters(`${load.run}${message}`) : `user${message % SENDERS}`;
  return Buffer.from(
    `request=smtpd_access_policy\nprotocol_state=RCPT\nprotocol_name=ESMTP\n` +
      `client_address=192.0.2.${1 + (message % CLIENTS)}\nclient_name=mx.sender.example\nclient_port=${20_000 + (message % 40_000)}\n` +
      `reverse_client_name=mx.sender.example\nserver_address=192.0.2.254\nserver_port=25\nhelo_name=mx.sender.example\n` +
      `sender=${sender}@sender.example\nrecipient=bob${(message + recipient) % RECIPIENTS}@example.org\nrecipient_count=0\nqueue_id=\n` +
      `instance=${load.run}.${message.toString(16)}.0\nsize=4711\netrn_domain=\nstress=\nsasl_method=\nsasl_username=\nsasl_sender=\n` +
      `ccert_subject=\nccert_issuer=\nccert_fingerprint=\nccert_pubkey_fingerprint=\nencryption_protocol=TLSv1.3\n` +
      `encryption_cipher=TLS_AES_256_GCM_SHA384\nencryption_keysize=256\npolicy_context=\n\n`,
    'latin1',
  );
}

/** Digits as letters: greylisting takes addresses that differ in their numbers for one. */
function letters(text: string): string {
  return text.replaceAll(/\d/g, (digit) => 'ghijklmnop'.charAt(Number(digit))).replaceAll('.', '');
}

const NEWLINE = 10;

class Run {
  readonly #load: Load;
  readonly #expect: RegExp;
  readonly #requests: Buffer[];
  readonly #times: Float64Array;
  #next = 0;
  #done = 0;
  #unexpected = 0;
  #begun = 0;
  #cpu = process.cpuUsage();
  #stopAt = Infinity;
  #open = 0;

  constructor(load: Load) {
    this.#load = load;
    this.#expect = new RegExp(`^action=(?:${load.expect})`);
    this.#requests = [];
    for (let message = 0; message < load.messages; message++) {
      for (let recipient = 0; recipient < load.recipients; recipient++) {
        this.#requests.push(request(load, message, recipient));
      }
    }
    this.#times = new Float64Array(this.#requests.length);
  }

  start(): void {
    const sockets: Socket[] = [];
    for (let index = 0; index < this.#load.connections; index++) {
      const socket = connect({ host: '127.0.0.1', port: this.#load.port, noDelay: true }, () => {
        this.#open++;
        if (this.#open === this.#load.connections) this.#go(sockets);
      });
      socket.on('error', fail);
      sockets.push(socket);
    }
  }

  #go(sockets: readonly Socket[]): void {
    this.#begun = performance.now();
    this.#stopAt = this.#begun + this.#load.seconds * 1000;
    this.#cpu = process.cpuUsage();
    for (const socket of sockets) this.#drive(socket);
  }

  /** The recipients of one message follow one another on its connection. */
  #drive(socket: Socket): void {
    const { recipients } = this.#load;
    let at = 0;
    let left = 0;
    let sent = 0;
    const next = (): void => {
      if (left === 0) {
        at = this.#next;
        this.#next += recipients;
        left = recipients;
      }
      sent = performance.now();
      const bytes = this.#requests[at];
      if (bytes === undefined || sent > this.#stopAt) {
        socket.destroy();
        this.#open--;
        if (this.#open === 0) this.#finish();
        return;
      }
      at++;
      left--;
      socket.write(bytes);
    };
    let held = '';
    socket.on('data', (chunk: Buffer) => {
      if (chunk.at(-1) !== NEWLINE || chunk.at(-2) !== NEWLINE) {
        held += chunk.toString('latin1');
        if (!held.endsWith('\n\n')) return;
      }
      const answer = held === '' ? chunk.toString('latin1', 0, 100) : held;
      held = '';
      if (!this.#expect.test(answer) && this.#unexpected++ === 0)
        console.error(`unexpected answer: ${answer.trimEnd()}`);
      this.#times[this.#done] = performance.now() - sent;
      this.#done++;
      next();
    });
    next();
  }

  #finish(): void {
    const seconds = (performance.now() - this.#begun) / 1000;
    const { user, system } = process.cpuUsage(this.#cpu);
    const times = this.#times.subarray(0, this.#done).toSorted();
    const at = (share: number): number => times[Math.floor((times.length - 1) * share)] ?? 0;
    const result: Loaded = {
      requests: this.#done,
      unexpected: this.#unexpected,
      seconds,
      p50Ms: at(0.5),
      p99Ms: at(0.99),
      busy: (user + system) / 1_000_000 / seconds,
    };
    console.log(JSON.stringify(result));
  }
}

function fail(error: Error): never {
  console.error(error.message);
  process.exit(1);
}

const [argument] = process.argv.slice(2);
if (import.meta.main && argument !== undefined) {
  new Run(loadOptions.parse(JSON.parse(argument))).start();
}
