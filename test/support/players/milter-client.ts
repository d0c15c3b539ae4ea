import type { Socket } from 'node:net';

import { dial, Inbox, type Target } from './dial.ts';

/**
 * Postfix's side of a milter connection, written from milter8.c's behaviour and not from our codec, so that a mistake in the codec
 * can't cancel itself out. Macros go before each event, one packet a header, bodies in pieces of 65,535 octets, no answer awaited
 * where the milter said that it gives none.
 */

export interface MilterMail {
  /** Client address; family follows from its form. */
  readonly address: string;
  readonly port: number;
  readonly host: string;
  readonly helo: string;
  readonly login?: string;
  readonly daemonName?: string;
  readonly queueId: string;
  /** With brackets, as SMTP has them. */
  readonly from: string;
  readonly to: readonly string[];
  /** Name, and value with its leading space. */
  readonly headers: readonly (readonly [string, string])[];
  readonly body: Uint8Array;
}

/** One modification, as the milter asked for it. */
export interface MilterEdit {
  readonly action: 'insert' | 'add' | 'change' | 'quarantine' | 'other';
  readonly index: number;
  readonly name: string;
  readonly value: string;
}

export interface MilterAnswer {
  /** The event that ended the message: `E` when it got to the end. */
  readonly at: string;
  /** c, a, r, t, d, or y. */
  readonly verdict: string;
  /** Text of a `y`. */
  readonly text: string;
  readonly edits: readonly MilterEdit[];
}

interface Packet {
  readonly code: string;
  readonly data: Buffer;
}

const BODY_CHUNK = 65_535;
const NO_REPLY: Readonly<Record<string, number>> = {
  L: 0x80, C: 0x1000, H: 0x2000, M: 0x4000, R: 0x8000, T: 0x10000, U: 0x20000, N: 0x40000, B: 0x80000,
}; // prettier-ignore
const NOT_WANTED: Readonly<Record<string, number>> = {
  C: 0x1, H: 0x2, M: 0x4, R: 0x8, B: 0x10, L: 0x20, N: 0x40, U: 0x100, T: 0x200,
}; // prettier-ignore
const OFFERED: Readonly<Record<number, number>> = { 2: 0x7f, 3: 0x17f, 4: 0x37f, 6: 0x1fffff };
const HDR_LEADSPC = 0x100000;

export class MilterClient implements AsyncDisposable {
  readonly #socket: Socket;
  readonly #inbox: Inbox;
  readonly #version: number;
  #flags = 0;

  private constructor(socket: Socket, version: number) {
    this.#socket = socket;
    this.#inbox = new Inbox(socket);
    this.#version = version;
  }

  static async open(target: Target, version: 2 | 3 | 4 | 6 = 6): Promise<MilterClient> {
    const client = new MilterClient(await dial(target), version);
    client.#send('O', uint32(version), uint32(0x1ff), uint32(OFFERED[version] ?? 0));
    const answer = await client.#packet();
    if (answer.code !== 'O') throw new Error(`negotiation was answered with ${answer.code}`);
    client.#flags = answer.data.readUInt32BE(8);
    return client;
  }

  /** Protocol flags of the milter's answer. */
  get flags(): number {
    return this.#flags;
  }

  /** Connect and HELO: once per connection, before the first message. */
  async begin(mail: MilterMail): Promise<MilterAnswer | null> {
    const family = mail.address.includes(':') ? '6' : '4';
    const connect = [string(mail.host), Buffer.from(family), uint16(mail.port), string(mail.address)];
    this.#macros('C', {
      j: 'mx.example.org',
      '{daemon_name}': mail.daemonName ?? 'mx.example.org',
      v: 'Postfix 3.7.11',
      _: `${mail.host} [${mail.address}]`,
    });
    return (
      (await this.#event('C', ...connect)) ??
      (this.#macros('H', {}), await this.#event('H', string(mail.helo)))
    );
  }

  /** One message from MAIL to the verdict, closed by ABORT as Postfix does. */
  async message(mail: MilterMail): Promise<MilterAnswer> {
    const answer = (await this.#envelope(mail)) ?? (await this.#content(mail));
    this.#send('A');
    return answer;
  }

  quit(): void {
    this.#send('Q');
    this.#socket.end();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#socket.destroy();
    await Promise.resolve();
  }

  async #envelope(mail: MilterMail): Promise<MilterAnswer | null> {
    this.#macros('M', {
      ...(mail.login === undefined ? {} : { '{auth_type}': 'PLAIN', '{auth_authen}': mail.login }),
      '{mail_addr}': mail.from.slice(1, -1),
    });
    const refused = await this.#event('M', string(mail.from));
    if (refused !== null) return refused;
    for (const [index, to] of mail.to.entries()) {
      this.#macros('R', { ...(index === 0 ? {} : { i: mail.queueId }), '{rcpt_addr}': to.slice(1, -1) });
      const answer = await this.#event('R', string(to));
      if (answer !== null) return answer;
    }
    if (this.#version < 4) return null;
    this.#macros('T', { i: mail.queueId });
    return this.#event('T');
  }

  async #content(mail: MilterMail): Promise<MilterAnswer> {
    const leading = (this.#flags & HDR_LEADSPC) !== 0;
    for (const [name, value] of mail.headers) {
      this.#macros('L', { i: mail.queueId });
      const shown = leading ? value : value.replace(/^ /, '');
      const answer = await this.#event('L', string(name), string(shown.replaceAll('\r\n', '\n')));
      if (answer !== null) return answer;
    }
    this.#macros('N', { i: mail.queueId });
    const ended = await this.#event('N');
    if (ended !== null) return ended;
    for (let at = 0; at < mail.body.length; at += BODY_CHUNK) {
      this.#macros('B', { i: mail.queueId });
      const answer = await this.#event('B', mail.body.subarray(at, at + BODY_CHUNK));
      if (answer?.verdict === 's') break;
      if (answer !== null) return answer;
    }
    this.#macros('E', { i: mail.queueId });
    this.#send('E');
    return this.#verdict('E');
  }

  /** Sends an event; null means go on. */
  async #event(code: string, ...data: readonly Uint8Array[]): Promise<MilterAnswer | null> {
    if ((this.#flags & (NOT_WANTED[code] ?? 0)) !== 0) return null;
    this.#send(code, ...data);
    if ((this.#flags & (NO_REPLY[code] ?? 0)) !== 0) return null;
    const answer = await this.#verdict(code);
    return answer.verdict === 'c' ? null : answer;
  }

  async #verdict(at: string): Promise<MilterAnswer> {
    const edits: MilterEdit[] = [];
    for (;;) {
      const { code, data } = await this.#packet();
      if (code === 'p') continue;
      if ('carstdy'.includes(code)) {
        return {
          at,
          verdict: code,
          text: code === 'y' ? data.toString('latin1', 0, data.length - 1) : '',
          edits,
        };
      }
      edits.push(edit(code, data));
    }
  }

  async #packet(): Promise<Packet> {
    const packet = await this.#inbox.next((held) => {
      if (held.length < 5) return null;
      const used = 4 + held.readUInt32BE(0);
      if (held.length < used) return null;
      return {
        value: { code: held.toString('latin1', 4, 5), data: Buffer.from(held.subarray(5, used)) },
        used,
      };
    });
    if (packet === null) throw new Error('the milter closed the connection');
    return packet;
  }

  #macros(stage: string, macros: Readonly<Record<string, string>>): void {
    this.#send(
      'D',
      Buffer.from(stage),
      ...Object.entries(macros).flatMap(([name, value]) => [string(name), string(value)]),
    );
  }

  #send(code: string, ...data: readonly Uint8Array[]): void {
    const size = data.reduce((sum, piece) => sum + piece.length, 1);
    this.#socket.write(Buffer.concat([uint32(size), Buffer.from(code), ...data]));
  }
}

/** The header section as Postfix would have it after these modifications; values keep or get their leading space as negotiated. */
export function applyAsPostfix(
  headers: readonly (readonly [string, string])[],
  edits: readonly MilterEdit[],
  leadingSpace: boolean,
): [string, string][] {
  const result: [string, string][] = headers.map(([name, value]) => [name, value]);
  const own = (value: string): string => (leadingSpace ? value : ` ${value}`).replaceAll('\n', '\r\n');
  for (const { action, index, name, value } of edits) {
    switch (action) {
      case 'insert':
        // Index 0 is above Postfix's own Received, 1 below it: both are the top of what the milter sees.
        result.splice(Math.max(0, index === 0 ? 0 : index - 1), 0, [name, own(value)]);
        break;
      case 'add':
        result.push([name, own(value)]);
        break;
      case 'change': {
        const places = result.flatMap(([field], place) =>
          field.toLowerCase() === name.toLowerCase() ? [place] : [],
        );
        const place = places[Math.max(0, index - 1)];
        if (place === undefined) {
          if (value !== '') result.push([name, own(value)]);
        } else if (value === '') {
          result.splice(place, 1);
        } else {
          result[place] = [name, own(value)];
        }
        break;
      }
      case 'quarantine':
      case 'other':
        break;
    }
  }
  return result;
}

function edit(code: string, data: Buffer): MilterEdit {
  const numbered = code === 'i' || code === 'm';
  const index = numbered ? data.readUInt32BE(0) : 0;
  const [name = '', value = ''] = data.toString('latin1', numbered ? 4 : 0).split('\0');
  switch (code) {
    case 'i':
      return { action: 'insert', index, name, value };
    case 'm':
      return { action: 'change', index, name, value };
    case 'h':
      return { action: 'add', index, name, value };
    case 'q':
      return { action: 'quarantine', index, name: '', value: name };
    default:
      return { action: 'other', index, name: code, value: name };
  }
}

function string(text: string): Buffer {
  return Buffer.from(`${text}\0`, 'latin1');
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

function uint16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value);
  return bytes;
}
