import { Connection } from './connection.ts';
import type { Credentials } from './smtp-client.ts';

/** One untagged response: its text, in which literals are left out, and the bytes of the literals. */
interface Response {
  readonly text: string;
  readonly literals: readonly Buffer[];
}

const LITERAL = /\{(\d+)\}$/;

/** As much of an IMAP4rev1 client (RFC 3501) as tests need. Messages are bytes. */
export class ImapClient implements AsyncDisposable {
  readonly #connection: Connection;
  #serial = 0;

  private constructor(connection: Connection) {
    this.#connection = connection;
  }

  /** @param localAddress where the client seems to be: one of 127.0.0.0/8 */
  static async login(
    port: number,
    { user, password }: Credentials,
    localAddress = '127.0.0.1',
  ): Promise<ImapClient> {
    const client = new ImapClient(await Connection.open({ port, localAddress }));
    try {
      await client.#readResponse();
      await client.command(`LOGIN ${quoted(user)} ${quoted(password)}`);
      return client;
    } catch (error) {
      client.#connection.close();
      throw error;
    }
  }

  /** The number of messages, or undefined if there is no such folder. */
  async select(folder: string): Promise<number | undefined> {
    const { ok, responses } = await this.#exchange(`SELECT ${quoted(folder)}`);
    return ok ? (lastExists(responses) ?? 0) : undefined;
  }

  /** The selected folder's messages, oldest first. Reading does not set \Seen. */
  async messages(): Promise<Buffer[]> {
    const { responses } = await this.#exchange('FETCH 1:* (BODY.PEEK[])');
    return responses.flatMap(({ text, literals }) => (/^\* \d+ FETCH /.test(text) ? literals : []));
  }

  /** The number of messages if the server says that it changed. */
  async noop(): Promise<number | undefined> {
    return lastExists(await this.command('NOOP'));
  }

  /** Waits until the server reports anything, or until the signal: then the number of messages, if it changed. */
  async idle(signal: AbortSignal): Promise<number | undefined> {
    const tag = this.#nextTag();
    const responses: Response[] = [];
    this.#connection.write(`${tag} IDLE\r\n`);
    await this.#readResponse();
    await this.#connection.lineArrived(signal);
    this.#connection.write('DONE\r\n');
    for (;;) {
      const response = await this.#readResponse();
      if (response.text.startsWith(`${tag} `)) return lastExists(responses);
      responses.push(response);
    }
  }

  /** Files a message there. RFC 3501 §6.3.11, RFC 7888. */
  async append(folder: string, message: Uint8Array): Promise<void> {
    const tag = this.#nextTag();
    this.#connection.write(`${tag} APPEND ${quoted(folder)} {${message.length}+}\r\n`);
    this.#connection.write(message);
    const { ok, result } = await this.#finish(tag, '\r\n');
    if (!ok) throw new Error(`IMAP: APPEND: ${result}`);
  }

  /** Any other command without literals; the untagged responses, an error unless the answer is OK. */
  async command(line: string): Promise<Response[]> {
    const { ok, result, responses } = await this.#exchange(line);
    if (!ok) throw new Error(`IMAP: ${line.split(' ')[0] ?? ''}: ${result}`);
    return responses;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#exchange('LOGOUT').catch(() => undefined);
    await this.#connection[Symbol.asyncDispose]();
  }

  #exchange(line: string): Promise<{ ok: boolean; result: string; responses: Response[] }> {
    const tag = this.#nextTag();
    return this.#finish(tag, `${tag} ${line}\r\n`);
  }

  /** Sends the end of a command, and reads up to its answer. */
  async #finish(tag: string, rest: string): Promise<{ ok: boolean; result: string; responses: Response[] }> {
    this.#connection.write(rest);
    const responses: Response[] = [];
    for (;;) {
      const response = await this.#readResponse();
      if (response.text.startsWith(`${tag} `)) {
        const result = response.text.slice(tag.length + 1);
        return { ok: result.startsWith('OK'), result, responses };
      }
      responses.push(response);
    }
  }

  async #readResponse(): Promise<Response> {
    const literals: Buffer[] = [];
    let text = '';
    for (;;) {
      const line = (await this.#connection.readLine()).toString('latin1');
      const literal = LITERAL.exec(line);
      if (literal === null) return { text: text + line, literals };
      text += line.slice(0, literal.index);
      literals.push(await this.#connection.readExactly(Number(literal[1])));
    }
  }

  #nextTag(): string {
    this.#serial += 1;
    return `t${this.#serial}`;
  }
}

function lastExists(responses: readonly Response[]): number | undefined {
  const numbers = responses.flatMap(({ text }) => /^\* (\d+) EXISTS/.exec(text)?.[1] ?? []);
  const last = numbers.at(-1);
  return last === undefined ? undefined : Number(last);
}

function quoted(text: string): string {
  return `"${text.replaceAll(/["\\]/g, String.raw`\$&`)}"`;
}
