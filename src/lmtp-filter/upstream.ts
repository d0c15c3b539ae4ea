import { formatSocketAddress } from '../config/values.ts';
import { UpstreamConnection, type UpstreamOptions } from './upstream-connection.ts';
import { UpstreamError } from './upstream-error.ts';
import type { UpstreamReply } from './reply-decoder.ts';

/** Dovecot closes at 5 minutes; a connection it is about to close is no good. */
export const IDLE_LIMIT_MS = 240_000;
/** Each idle connection holds a process of Dovecot's; 20 is Postfix's own limit of parallel deliveries to one destination. */
export const IDLE_CONNECTIONS = 20;

export interface UpstreamObserver {
  connected(): void;
  failed(error: UpstreamError): void;
  open(change: 1 | -1): void;
  /** Whether the last attempt to connect worked. */
  health(upstream: string, up: boolean): void;
  /** Nothing connects there any more. */
  forget(upstream: string): void;
}

/** An upstream transaction that MAIL was sent for. */
export interface Begun {
  readonly connection: UpstreamConnection;
  /** The answer to MAIL. */
  readonly reply: UpstreamReply;
  /** The answers to what was sent behind it. */
  readonly more: readonly Promise<UpstreamReply>[];
}

/** MAIL, and what is to be sent behind it. */
export type Opening = (capabilities: ReadonlySet<string>) => readonly [mail: string, ...more: string[]];

interface Idle {
  readonly connection: UpstreamConnection;
  readonly timer: NodeJS.Timeout;
}

/** Connections to one LMTP server, used one transaction after the other. */
export class UpstreamPool {
  /** The server's address, as it is written in the configuration. */
  readonly name: string;
  readonly #options: UpstreamOptions;
  readonly #observe: UpstreamObserver;
  /** The last one was used last: the ones not needed grow old at the front. */
  readonly #idle: Idle[] = [];
  readonly #open = new Set<UpstreamConnection>();
  #capabilities: ReadonlySet<string> | null = null;
  readonly #abort = new AbortController();
  /** The last attempt to connect failed. */
  #down = false;
  /** The attempt that is to show whether it is there again. */
  #probe: Promise<UpstreamConnection> | null = null;
  #closed = false;

  constructor(options: UpstreamOptions, observe: UpstreamObserver) {
    this.#options = options;
    this.#observe = observe;
    this.name = formatSocketAddress(options.address);
    observe.health(this.name, true);
  }

  get options(): UpstreamOptions {
    return this.#options;
  }

  /**
   * What the server announced when it was last connected to; asks it when that is not known yet. null: it can't be reached.
   */
  async capabilities(): Promise<ReadonlySet<string> | null> {
    if (this.#capabilities !== null) return this.#capabilities;
    try {
      this.release(await this.#connect());
    } catch (error) {
      if (!(error instanceof UpstreamError)) throw error;
      this.#observe.failed(error);
    }
    return this.#capabilities;
  }

  /**
   * Begins a transaction on a connection that is free, or on a new one. A connection that the server closed while it was idle costs
   * nothing: what comes before DATA does no harm when it is sent twice.
   *
   * @throws {UpstreamError}
   */
  async begin(opening: Opening): Promise<Begun> {
    for (let free = this.#take(); free !== null; free = this.#take()) {
      try {
        return await again(free, opening);
      } catch (error) {
        free.destroy();
        // One that hangs makes others likely to hang, each for as long.
        if (!(error instanceof UpstreamError) || error.failure === 'timeout') throw error;
      }
    }
    const connection = await this.#connect();
    try {
      return await begun(connection, connection.pipeline(opening(connection.capabilities)));
    } catch (error) {
      connection.destroy();
      throw error;
    }
  }

  /** Gives a connection back whose transaction is over. */
  release(connection: UpstreamConnection): void {
    if (!connection.usable) return;
    connection.setPatience(this.#options.timeoutMs);
    if (this.#closed || this.#idle.length >= IDLE_CONNECTIONS) {
      connection.quit();
      return;
    }
    const timer = setTimeout(() => connection.quit(), IDLE_LIMIT_MS);
    timer.unref();
    this.#idle.push({ connection, timer });
  }

  /** Gives a connection back in the middle of a transaction, which is called off. */
  async reset(connection: UpstreamConnection): Promise<void> {
    try {
      const reply = await connection.command('RSET');
      if (reply.code === 250) this.release(connection);
      else connection.destroy();
    } catch (error) {
      if (!(error instanceof UpstreamError)) throw error; // it is gone: there is no transaction any more
    }
  }

  /** Ends what is idle now, and what is given back from now on. */
  close(): void {
    this.#closed = true;
    for (const { connection, timer } of this.#idle.splice(0)) {
      clearTimeout(timer);
      connection.quit();
    }
  }

  /** Ends all of them at once; a message that is half sent is not taken by the server. */
  abort(): void {
    this.#closed = true;
    this.#abort.abort();
    for (const connection of this.#open) connection.destroy();
  }

  #take(): UpstreamConnection | null {
    const idle = this.#idle.pop();
    if (idle === undefined) return null;
    clearTimeout(idle.timer);
    return idle.connection;
  }

  /**
   * A new connection. While the server is not to be had, one attempt at a time is made, and whoever comes meanwhile waits for what
   * comes of it: a server that lets everybody wait does not gather connections, and one that is back has its mail at once.
   */
  #connect(): Promise<UpstreamConnection> {
    if (!this.#down) return this.#dial();
    if (this.#probe !== null) return this.#probe.then(() => this.#dial());
    const probe = this.#dial();
    this.#probe = probe;
    const over = (): void => {
      this.#probe = null;
    };
    probe.then(over, over);
    return probe;
  }

  async #dial(): Promise<UpstreamConnection> {
    let connection: UpstreamConnection;
    try {
      connection = await UpstreamConnection.open(this.#options, this.#abort.signal);
    } catch (error) {
      this.#tell(false);
      throw error;
    }
    this.#tell(true);
    this.#capabilities = connection.capabilities;
    this.#open.add(connection);
    this.#observe.connected();
    this.#observe.open(1);
    connection.onEnd(() => this.#ended(connection));
    return connection;
  }

  #tell(up: boolean): void {
    this.#down = !up;
    if (!this.#closed) this.#observe.health(this.name, up);
  }

  #ended(connection: UpstreamConnection): void {
    if (this.#open.delete(connection)) this.#observe.open(-1);
    const index = this.#idle.findIndex((idle) => idle.connection === connection);
    if (index === -1) return;
    clearTimeout(this.#idle[index]?.timer);
    this.#idle.splice(index, 1);
  }
}

/** A transaction on a connection that was used before. */
async function again(connection: UpstreamConnection, opening: Opening): Promise<Begun> {
  const [rset, ...replies] = connection.pipeline(['RSET', ...opening(connection.capabilities)]);
  const reset = await rset;
  if (reset?.code !== 250) throw new UpstreamError('protocol', `RSET answered with ${reset?.code}`);
  const result = await begun(connection, replies);
  // RFC 5321 §3.8: it is about to close.
  if (result.reply.code === 421) throw new UpstreamError('lost', 'the server closes the connection');
  return result;
}

async function begun(connection: UpstreamConnection, replies: Promise<UpstreamReply>[]): Promise<Begun> {
  const [mail, ...more] = replies;
  if (mail === undefined) throw new Error('no MAIL was sent');
  const reply = await mail;
  // What was sent behind it is refused as well; the connection is free when that is through.
  if (reply.code >= 300) await Promise.allSettled(more);
  return { connection, reply, more };
}
