import { closeSync, openSync, readSync } from 'node:fs';
import { open, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { StringDecoder } from 'node:string_decoder';

const READ_SIZE = 65_536;
const LINE = /postfix\/[a-z/]+\[\d+\]: ([0-9A-Za-z]+): (.*)$/;

/** A message and one of its recipients. */
export function keyOf(subject: string, recipient: string): string {
  return `${subject} ${recipient}`;
}

/** What Postfix's log says of the messages of a storm. All of it is read: a storm's log is longer than what tests keep of logs. */
export class PostfixLedger implements Disposable {
  readonly #file: number;
  readonly #buffer = Buffer.alloc(READ_SIZE);
  readonly #decoder = new StringDecoder('utf8');
  #partial = '';
  readonly #subjects = new Map<string, string>();
  readonly #open = new Set<string>();
  readonly #bounced = new Set<string>();
  readonly #putOff = new Set<string>();

  /** @param path mail.log */
  constructor(path: string) {
    this.#file = openSync(path, 'r');
  }

  /** Reads what has been written since, and says how many messages are with Postfix. */
  inFlight(): number {
    for (;;) {
      const length = readSync(this.#file, this.#buffer, 0, READ_SIZE, null);
      if (length === 0) return this.#open.size;
      const lines = (this.#partial + this.#decoder.write(this.#buffer.subarray(0, length))).split('\n');
      this.#partial = lines.pop() ?? '';
      for (const line of lines) this.#read(line);
    }
  }

  subjectOf(queueId: string): string | null {
    return this.#subjects.get(queueId) ?? null;
  }

  /** Given up, as `keyOf` names them. */
  get bounced(): ReadonlySet<string> {
    return this.#bounced;
  }

  /** Answered with a 4xx once at least. */
  get putOff(): ReadonlySet<string> {
    return this.#putOff;
  }

  #read(line: string): void {
    const [, queueId = '', rest = ''] = LINE.exec(line) ?? [];
    const id = /^message-id=<(\d+)@storm\.example>/.exec(rest)?.[1];
    if (id !== undefined) {
      this.#subjects.set(queueId, `number ${id}`);
      this.#open.add(queueId);
      return;
    }
    if (rest === 'removed') this.#open.delete(queueId);
    const [, to, status] = /^to=<([^>]+)>.* status=(bounced|deferred) /.exec(rest) ?? [];
    const subject = this.#subjects.get(queueId);
    if (to === undefined || subject === undefined) return;
    (status === 'bounced' ? this.#bounced : this.#putOff).add(keyOf(subject, to));
  }

  [Symbol.dispose](): void {
    closeSync(this.#file);
  }
}

/** Longer than any header section of a storm. */
const HEAD_SIZE = 8192;

export interface StoredMail {
  readonly subject: string;
  /** Whether a scanner's words are in it. */
  readonly scanned: boolean;
}

/** The messages in a Maildir's inbox. Not by Dovecot, which takes minutes for ten thousand of them on a busy machine. */
export async function* storedMail(maildir: string): AsyncGenerator<StoredMail> {
  const buffer = Buffer.alloc(HEAD_SIZE);
  for (const folder of ['new', 'cur']) {
    const path = join(maildir, folder);
    for (const name of await readdir(path).catch((): string[] => [])) {
      await using file = await open(join(path, name), 'r');
      const { bytesRead } = await file.read(buffer, 0, HEAD_SIZE, 0);
      const [head = ''] = buffer.toString('latin1', 0, bytesRead).split(/\r?\n\r?\n/, 1);
      yield {
        subject: /^Subject: (.*?)\r?$/m.exec(head)?.[1] ?? '',
        scanned: /^X-Spam-Status: /m.test(head),
      };
    }
  }
}
