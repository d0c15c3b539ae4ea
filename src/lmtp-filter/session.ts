import type { Socket } from 'node:net';

import { noteBuffer } from '../runtime/buffer-garbage.ts';
import { ClientStream } from './client-stream.ts';
import { parseCommand, type Command } from './command.ts';
import type { PathCommand } from './envelope-lines.ts';
import { finish } from './finish.ts';
import { Intake } from './intake.ts';
import { greeting, lhloReply, problem, SAY } from './render.ts';
import { recordRefused } from './refused.ts';
import { Transaction, type TransactionTools } from './transaction.ts';
import { LmtpDecoder, type Input } from './wire.ts';
import { forward, NOTHING_FORWARDED, type Forwarded } from './xforward.ts';

/** RFC 5321 §4.5.3.2.7: a server waits for 5 minutes at least. */
const IDLE_MS = 300_000;
/** How long the client may take to read our last reply, and to end its side. */
const END_MS = 5000;
/** The same, when this process is to end now. */
const CUT_END_MS = 200;
/** Commands in a row that are not understood. Dovecot's own limit is 10. */
export const BAD_COMMAND_LIMIT = 20;

/** Whether the session goes on. */
type Next = 'on' | 'end';

/** One connection from Postfix. Keeps the configuration it began with. */
export class Session {
  readonly #tools: TransactionTools;
  readonly #stream: ClientStream;
  readonly #decoder = new LmtpDecoder();
  readonly #gone = new AbortController();
  readonly #cut = new AbortController();
  /** How we call ourselves. Not as Postfix is called: its client takes a server of its own name for a loop. */
  readonly #name: string;
  #introduced = false;
  #forwarded: Forwarded = NOTHING_FORWARDED;
  #transaction: Transaction | null = null;
  /** Was taken from the decoder, and is next. */
  #ahead: Input | null = null;
  #badCommands = 0;
  #stopping = false;

  constructor(socket: Socket, tools: TransactionTools) {
    this.#tools = tools;
    this.#stream = new ClientStream(socket);
    this.#stream.onGone(() => this.#gone.abort());
    this.#name = `postern.${tools.config.file.site.hostname}`;
  }

  /** Talks until one side ends it. Never rejects. */
  async run(): Promise<void> {
    this.#say(greeting(this.#name));
    try {
      while ((await this.#turn()) === 'on');
    } catch (error) {
      this.#tools.log.error({ daemon: 'lmtp-filter', err: error }, 'session failed');
    } finally {
      await this.#abandon();
      await this.#stream.end(this.#cut.signal.aborted ? CUT_END_MS : END_MS);
    }
  }

  /** The next command is answered with 421; a message that is past its dot gets its replies before. */
  stop(): void {
    this.#stopping = true;
  }

  /** Ends it now; open recipients are answered with 451. Connections to Dovecot are the caller's to end. */
  cut(): void {
    this.#stopping = true;
    this.#cut.abort();
    this.#stream.giveUp();
  }

  async #turn(): Promise<Next> {
    const input = await this.#next();
    switch (input.kind) {
      case 'gone':
        return 'end';
      case 'silent':
        this.#say(SAY.idle);
        return 'end';
      case 'given-up':
        this.#say(SAY.stopping);
        return 'end';
      case 'overlong':
        return this.#bad(SAY.overlong);
      case 'line':
        return await this.#line(input.text);
      case 'content':
      case 'end':
        throw new Error('content outside of DATA');
    }
  }

  async #next(): Promise<Input | { readonly kind: 'gone' | 'silent' | 'given-up' }> {
    for (;;) {
      const input = this.#ahead ?? this.#decoder.next();
      this.#ahead = null;
      if (input !== null) return input;
      const read = await this.#stream.read(IDLE_MS);
      if (read.kind !== 'piece') return read;
      noteBuffer(read.piece.length);
      this.#decoder.push(read.piece);
    }
  }

  async #line(line: string): Promise<Next> {
    const command = parseCommand(line);
    // Postfix takes whatever follows a 421 for the reply to what it sent next, so nothing follows.
    if (this.#stopping && command.verb !== 'QUIT') {
      this.#say(SAY.stopping);
      return 'end';
    }
    if (command.verb === 'none') return this.#bad(problem(command.problem));
    this.#badCommands = 0;
    if (command.verb === 'QUIT') {
      this.#say(SAY.bye);
      return 'end';
    }
    await this.#answer(command);
    return command.verb === 'DATA' && this.#transaction !== null && this.#transaction.accepted.length > 0
      ? await this.#content(this.#transaction)
      : 'on';
  }

  async #answer(command: Exclude<Command, { verb: 'none' } | { verb: 'QUIT' }>): Promise<void> {
    switch (command.verb) {
      case 'LHLO':
        this.#say(await this.#lhlo());
        break;
      case 'XFORWARD':
        this.#say(this.#xforward(command.attributes));
        break;
      case 'MAIL':
        await this.#mail(command);
        break;
      case 'RCPT':
        if (this.#transaction === null) this.#say(SAY.mailFirst);
        else await this.#transaction.rcpt([command, ...this.#rcptsHere()], (reply) => this.#say(reply));
        break;
      case 'DATA':
        if (this.#transaction === null) this.#say(SAY.mailFirst);
        else this.#data(this.#transaction);
        break;
      case 'RSET':
        await this.#abandon();
        this.#say(SAY.ok);
        break;
      case 'NOOP':
        this.#say(SAY.ok);
        break;
      case 'VRFY':
        this.#say(SAY.cannotVerify);
        break;
    }
  }

  async #mail(sender: PathCommand): Promise<void> {
    if (!this.#introduced) return this.#say(SAY.lhloFirst);
    // One that was refused stays for the recipients pipelined behind it, and is in nobody's way.
    if (this.#transaction?.begun === true) return this.#say(SAY.nested);
    this.#transaction = new Transaction(sender, this.#forwarded, this.#tools);
    await this.#transaction.mail(this.#rcptsHere(), (reply) => this.#say(reply));
  }

  #data(transaction: Transaction): void {
    void recordRefused(transaction.takeRefused(), transaction, this.#tools, 'rcpt');
    this.#say(transaction.accepted.length === 0 ? SAY.noRecipients : SAY.go);
  }

  /** The RCPTs that have come already: Dovecot is asked about all of them at once. */
  #rcptsHere(): PathCommand[] {
    const commands: PathCommand[] = [];
    while (this.#ahead === null) {
      const input = this.#decoder.next();
      if (input === null) break;
      const command = input.kind === 'line' ? parseCommand(input.text) : null;
      if (command?.verb === 'RCPT') commands.push(command);
      else this.#ahead = input;
    }
    return commands;
  }

  async #lhlo(): Promise<string> {
    await this.#abandon();
    this.#introduced = true;
    const { upstreams, config } = this.#tools;
    const capabilities = await upstreams.capabilities();
    // Not announced, Postfix bounces such mail for good: where Dovecot can't be asked, MAIL will be deferred instead.
    const smtputf8 = capabilities === null || capabilities.has('SMTPUTF8');
    return lhloReply(this.#name, config.file['lmtp-filter'].max_message_size, smtputf8);
  }

  #xforward(attributes: string): string {
    if (this.#transaction?.begun === true) return SAY.xforwardLate;
    const forwarded = forward(this.#forwarded, attributes);
    if (forwarded === null) return SAY.badXforward;
    this.#forwarded = forwarded;
    return SAY.ok;
  }

  async #content(transaction: Transaction): Promise<Next> {
    const { max_message_size, memory_per_message } = this.#tools.config.file['lmtp-filter'];
    const { folder } = this.#tools.config.file.state;
    await using intake = new Intake({ memory: memory_per_message, limit: max_message_size, folder });
    this.#decoder.startContent();
    for (let input = await this.#next(); input.kind !== 'end'; input = await this.#next()) {
      // A client that left half-way has sent no message. RFC 5321 §4.1.1.4
      if (input.kind !== 'content')
        return input.kind === 'silent' || input.kind === 'given-up' ? this.#leave(input.kind) : 'end';
      const full = intake.write(input.chunk);
      if (full !== undefined) await full;
    }
    await finish({
      transaction,
      intake: await intake.finish(),
      tools: this.#tools,
      send: (text) => {
        this.#stream.say(text);
        return this.#stream.flushSoon();
      },
      gone: this.#gone.signal,
      cut: this.#cut.signal,
    });
    await this.#abandon();
    return 'on';
  }

  #leave(why: 'silent' | 'given-up'): Next {
    this.#say(why === 'silent' ? SAY.idle : SAY.stopping);
    return 'end';
  }

  #bad(reply: string): Next {
    this.#badCommands += 1;
    this.#say(this.#badCommands > BAD_COMMAND_LIMIT ? SAY.tooManyErrors : reply);
    return this.#badCommands > BAD_COMMAND_LIMIT ? 'end' : 'on';
  }

  /** Back to where LHLO left the session. What XFORWARD said was for one transaction. */
  async #abandon(): Promise<void> {
    const transaction = this.#transaction;
    this.#transaction = null;
    this.#forwarded = NOTHING_FORWARDED;
    await transaction?.abandon();
  }

  #say(line: string): void {
    this.#stream.say(`${line}\r\n`);
  }
}
