import { isIP } from 'node:net';

import type { TlsInfo } from '../mail/envelope.ts';
import { ProtocolError } from './command.ts';

/** Macros that mean something to us; all others are dropped as they come. */
const KEPT: ReadonlySet<string> = new Set([
  '_',
  'i',
  '{auth_authen}',
  '{cipher}',
  '{cipher_bits}',
  '{daemon_name}',
  '{tls_version}',
]);

/** Postfix's line_length_limit; no command line, and so nothing taken from one, is longer. */
const VALUE_LIMIT = 2048;

/** What Postfix is told to call its submission services: `-o milter_macro_daemon_name=ORIGINATING`. */
const ORIGINATING = 'ORIGINATING';

/**
 * The macros (SMFIC_MACRO) of one connection, each for as long as what it belongs to: the TLS session comes with HELO and holds for every
 * message, a login and a queue id hold for one.
 */
export class Macros {
  #connection = new Map<string, string>();
  #helo = new Map<string, string>();
  #message = new Map<string, string>();
  /** Put into `#message` last. */
  #last: readonly string[] | null = null;

  /**
   * `stage` is the command that they precede. Which macros come with which one is the MTA's configuration, so all later stages are one.
   *
   * @throws {ProtocolError}
   */
  set(stage: string, macros: readonly string[]): void {
    switch (stage) {
      case 'C':
        this.#connection = kept(macros, new Map());
        break;
      case 'H':
        this.#helo = kept(macros, new Map());
        break;
      case 'M':
        this.#message = kept(macros, new Map());
        this.#last = macros;
        break;
      default:
        if (macros !== this.#last) kept(macros, this.#message);
        this.#last = macros;
    }
  }

  forgetMessage(): void {
    if (this.#message.size > 0) this.#message = new Map();
    this.#last = null;
  }

  forgetConnection(): void {
    this.#connection = new Map();
    this.#helo = new Map();
    this.forgetMessage();
  }

  get queueId(): string | null {
    return this.#get('i');
  }

  /** The SASL login. */
  get login(): string | null {
    return this.#get('{auth_authen}');
  }

  /** Whether mail comes in through a service that is for our own users only. */
  get originating(): boolean {
    return this.#get('{daemon_name}') === ORIGINATING;
  }

  get tls(): TlsInfo | null {
    const protocol = this.#get('{tls_version}');
    if (protocol === null) return null;
    const bits = Number.parseInt(this.#get('{cipher_bits}') ?? '', 10);
    return { protocol, cipher: this.#get('{cipher}') ?? '', bits: Number.isNaN(bits) ? null : bits };
  }

  /** Name of the client's PTR record, from `_`: `name [address]`, and `(may be forged)` when that name has not the client's address. */
  get reverseName(): string | null {
    const resolved = /^(?:[^@\s]*@)?([^@\s]+) \[/.exec(this.#get('_') ?? '')?.[1];
    if (resolved === undefined || resolved === 'unknown' || isIP(resolved) !== 0) return null;
    return resolved;
  }

  get forged(): boolean {
    return this.#get('_')?.endsWith('(may be forged)') ?? false;
  }

  /** An empty macro is one that is not there. */
  #get(name: string): string | null {
    return this.#message.get(name) || this.#helo.get(name) || this.#connection.get(name) || null;
  }
}

function kept(macros: readonly string[], into: Map<string, string>): Map<string, string> {
  for (let at = 0; at + 1 < macros.length; at += 2) {
    const name = macros[at] ?? '';
    const value = macros[at + 1] ?? '';
    if (!KEPT.has(name)) continue;
    if (value.length > VALUE_LIMIT)
      throw new ProtocolError('malformed', `a value of ${value.length} octets for ${name}`);
    into.set(name, value);
  }
  return into;
}
