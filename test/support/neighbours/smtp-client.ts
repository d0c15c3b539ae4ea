import { Connection, type Endpoint } from './connection.ts';

export interface Reply {
  readonly code: number;
  /** The enhanced status code at the start of the last line, such as `5.7.1`. */
  readonly enhanced?: string;
  /** The texts of all lines, joined by newlines, without codes. */
  readonly text: string;
  /** The lines as they came, without CRLF. */
  readonly lines: readonly string[];
}

export interface Xclient {
  readonly addr: string;
  /** Without a name the client counts as one whose address has no verified name. */
  readonly name?: string;
  readonly helo?: string;
  readonly reverseName?: string;
  readonly port?: number;
  readonly login?: string;
  readonly proto?: 'SMTP' | 'ESMTP';
}

export interface Credentials {
  readonly user: string;
  readonly password: string;
}

/** Speaks SMTP, or LMTP after `lhlo()`, one command at a time, and hides no reply. */
export class SmtpClient implements AsyncDisposable {
  readonly #connection: Connection;
  readonly greeting: Reply;
  #accepted = 0;
  #lmtp = false;

  private constructor(connection: Connection, greeting: Reply) {
    this.#connection = connection;
    this.greeting = greeting;
  }

  static async connect(endpoint: Endpoint, deadlineMs?: number): Promise<SmtpClient> {
    const connection = await Connection.open(endpoint, deadlineMs);
    try {
      return new SmtpClient(connection, await readReply(connection));
    } catch (error) {
      connection.close();
      throw error;
    }
  }

  ehlo(name: string): Promise<Reply> {
    return this.command(`EHLO ${name}`);
  }

  helo(name: string): Promise<Reply> {
    return this.command(`HELO ${name}`);
  }

  lhlo(name: string): Promise<Reply> {
    this.#lmtp = true;
    return this.command(`LHLO ${name}`);
  }

  /** Plays another host. The reply is the new greeting; EHLO comes again after it. */
  xclient(client: Xclient): Promise<Reply> {
    const address = client.addr.includes(':') ? `IPV6:${client.addr}` : client.addr;
    const attributes = {
      NAME: client.name ?? '[UNAVAILABLE]',
      ADDR: address,
      REVERSE_NAME: client.reverseName,
      PORT: client.port?.toString(),
      HELO: client.helo,
      LOGIN: client.login,
      PROTO: client.proto,
    };
    const words = Object.entries(attributes).flatMap(([name, value]) =>
      value === undefined ? [] : [`${name}=${value.startsWith('[') ? value : xtext(value)}`],
    );
    return this.command(`XCLIENT ${words.join(' ')}`);
  }

  authPlain({ user, password }: Credentials): Promise<Reply> {
    return this.command(`AUTH PLAIN ${Buffer.from(`\0${user}\0${password}`).toString('base64')}`);
  }

  /** `sender` without angle brackets, '' for the null path. */
  mail(sender: string, parameters: readonly string[] = []): Promise<Reply> {
    this.#accepted = 0;
    return this.command([`MAIL FROM:<${sender}>`, ...parameters].join(' '));
  }

  async rcpt(recipient: string, parameters: readonly string[] = []): Promise<Reply> {
    const reply = await this.command([`RCPT TO:<${recipient}>`, ...parameters].join(' '));
    if (isPositive(reply)) this.#accepted += 1;
    return reply;
  }

  /**
   * DATA and, if the server wants it, the message. Line ends become CRLF, dots are stuffed; a Uint8Array keeps its bare
   * line ends. `replies` are those after the final dot: one with SMTP, one for each accepted recipient with LMTP.
   */
  async data(message: string | Uint8Array): Promise<{ data: Reply; replies: Reply[] }> {
    const data = await this.command('DATA');
    if (data.code !== 354) return { data, replies: [] };
    this.#connection.write(stuffDots(message));
    return { data, replies: await this.readReplies(this.#lmtp ? this.#accepted : 1) };
  }

  rset(): Promise<Reply> {
    return this.command('RSET');
  }

  quit(): Promise<Reply> {
    return this.command('QUIT');
  }

  async command(line: string): Promise<Reply> {
    this.#connection.write(`${line}\r\n`);
    return this.readReply();
  }

  /** Bytes just as given, for what no client should send; read the replies with `readReply()`. */
  writeRaw(bytes: string | Uint8Array): void {
    this.#connection.write(bytes);
  }

  readReply(): Promise<Reply> {
    return readReply(this.#connection);
  }

  async readReplies(count: number): Promise<Reply[]> {
    const replies: Reply[] = [];
    while (replies.length < count) replies.push(await this.readReply());
    return replies;
  }

  /** Everything up to the server's end of the connection. */
  readToEnd(): Promise<Buffer> {
    return this.#connection.readToEnd();
  }

  /** Hangs up without QUIT. */
  close(): void {
    this.#connection.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#connection[Symbol.asyncDispose]();
  }
}

export interface Mail {
  readonly port: number;
  readonly host?: string;
  readonly xclient?: Xclient;
  readonly auth?: Credentials;
  readonly helo?: string;
  readonly from: string;
  readonly to: readonly string[];
  readonly data: string | Uint8Array;
  readonly mailParameters?: readonly string[];
}

export interface MailReplies {
  readonly greeting: Reply;
  readonly xclient?: Reply;
  readonly ehlo: Reply;
  readonly auth?: Reply;
  readonly mail: Reply;
  /** One for each of `to`, none if the sender was refused. */
  readonly rcpt: readonly Reply[];
  /** DATA is sent only if a recipient was accepted. */
  readonly data?: Reply;
  /** After the final dot. */
  readonly end?: Reply;
  /** The last reply that was not a success, or the one after the dot. */
  readonly outcome: Reply;
}

/** One message in a session of its own. Refusals are replies, not exceptions. */
export async function sendMail(mail: Mail): Promise<MailReplies> {
  await using client = await SmtpClient.connect({ port: mail.port, host: mail.host ?? '127.0.0.1' });
  const { greeting } = client;
  const helo = mail.helo ?? mail.xclient?.helo ?? 'client.example';
  let ehlo = await client.ehlo(helo);
  let xclient: Reply | undefined;
  if (mail.xclient !== undefined) {
    xclient = await client.xclient(mail.xclient);
    ehlo = await client.ehlo(helo);
  }
  const auth = mail.auth === undefined ? undefined : await client.authPlain(mail.auth);
  const first = { greeting, ehlo, ...(xclient && { xclient }), ...(auth && { auth }) };

  const sender = await client.mail(mail.from, mail.mailParameters);
  const rcpt: Reply[] = [];
  if (isPositive(sender)) {
    for (const recipient of mail.to) rcpt.push(await client.rcpt(recipient));
  }
  const envelope = { ...first, mail: sender, rcpt };
  if (!rcpt.some(isPositive)) {
    await client.quit().catch(() => undefined);
    return { ...envelope, outcome: rcpt.at(-1) ?? sender };
  }
  const { data, replies } = await client.data(mail.data);
  await client.quit().catch(() => undefined);
  const [end] = replies;
  return { ...envelope, data, ...(end && { end }), outcome: end ?? data };
}

function isPositive(reply: Reply): boolean {
  return reply.code >= 200 && reply.code < 300;
}

async function readReply(connection: Connection): Promise<Reply> {
  const lines: string[] = [];
  for (;;) {
    const line = (await connection.readLine()).toString('utf8');
    lines.push(line);
    if (!/^\d{3}/.test(line)) throw new Error(`not a reply: ${JSON.stringify(lines)}`);
    if (line[3] !== '-') break;
  }
  const last = lines.at(-1) ?? '';
  const enhanced = /^\d{3} ([245]\.\d{1,3}\.\d{1,3})(?: |$)/.exec(last)?.[1];
  return {
    code: Number(last.slice(0, 3)),
    ...(enhanced !== undefined && { enhanced }),
    text: lines.map((line) => line.slice(4)).join('\n'),
    lines,
  };
}

// RFC 3461 §4
function xtext(value: string): string {
  return value.replaceAll(/[^!-~]|[+=]/g, (character) =>
    [...Buffer.from(character)]
      .map((byte) => `+${byte.toString(16).toUpperCase().padStart(2, '0')}`)
      .join(''),
  );
}

// RFC 5321 §4.5.2
function stuffDots(message: string | Uint8Array): Buffer {
  const bytes =
    typeof message === 'string'
      ? Buffer.from(message.replaceAll(/\r?\n/g, '\r\n')).toString('latin1')
      : Buffer.from(message).toString('latin1');
  const ended = bytes === '' || bytes.endsWith('\r\n') ? bytes : `${bytes}\r\n`;
  return Buffer.from(`${ended.replaceAll(/(^|\r\n)\./g, '$1..')}.\r\n`, 'latin1');
}
