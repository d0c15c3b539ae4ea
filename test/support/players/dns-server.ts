import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { createServer, type AddressInfo, type Server, type Socket as TcpSocket } from 'node:net';

import {
  decode,
  encode,
  AUTHORITATIVE_ANSWER,
  TRUNCATED_RESPONSE,
  type Answer,
  type Packet,
} from 'dns-packet';

/** Values of one name and type. TXT: a list is the character-strings of one record as they are; a text is cut into them. */
export type ZoneData = Readonly<Record<string, readonly (string | readonly string[])[]>>;

/** In place of a type: every question about the name that has no records of its type fails like this. */
const FAILURES = { SERVFAIL: 2, REFUSED: 5 } as const;

const TTL = 300;

/** RFC 6891 §6.2.5, as src/adapters/dns-message.ts has it. */
const UDP_LIMIT = 1232;

const NXDOMAIN = 3;

const CHAIN_LIMIT = 8;

/**
 * A name server for a few names: a zone from a table, NXDOMAIN for the rest. UDP and TCP on one port, on loopback.
 *
 * Keys: `TXT name`, `A name`, `PTR name`, `MX name` (values `10 exchange`), `CNAME name`; a name may begin with a wildcard, `*.name`.
 * `TIMEOUT name` is silent about all that the name has no records of, `SERVFAIL name` and `REFUSED name` say so (values: `[]`).
 */
export class DnsServer implements AsyncDisposable {
  /** What was asked, as `TYPE name`, in order. */
  readonly asked: string[] = [];
  readonly #udp: Socket;
  readonly #tcp: Server;
  readonly #connections = new Set<TcpSocket>();
  readonly #ttl: number;
  #zone: ZoneData = {};
  /** Every name there is, those between a name and its parents too (RFC 8020). */
  #names: ReadonlySet<string> = new Set();

  private constructor(udp: Socket, tcp: Server, ttl: number) {
    this.#udp = udp;
    this.#tcp = tcp;
    this.#ttl = ttl;
  }

  static async open(
    zone: ZoneData,
    { ttl = TTL, port = 0 }: { ttl?: number; port?: number } = {},
  ): Promise<DnsServer> {
    const tcp = createServer();
    tcp.listen(port, '127.0.0.1');
    await once(tcp, 'listening');
    const udp = createSocket('udp4');
    const server = new DnsServer(udp, tcp, ttl);
    udp.on('message', (query, peer) => {
      const answer = server.#answer(query, UDP_LIMIT);
      if (answer !== null) udp.send(answer, peer.port, peer.address);
    });
    tcp.on('connection', (socket) => server.#converse(socket));
    udp.bind(server.port, '127.0.0.1');
    await once(udp, 'listening');
    server.serve(zone);
    return server;
  }

  get port(): number {
    const address: AddressInfo | string | null = this.#tcp.address();
    if (address === null || typeof address === 'string') throw new Error('not listening on a port');
    return address.port;
  }

  /** Another zone from now on. */
  serve(zone: ZoneData): void {
    this.#zone = Object.fromEntries(
      Object.entries(zone).map(([key, values]) => {
        const space = key.indexOf(' ');
        return [`${key.slice(0, space)}${key.slice(space).toLowerCase()}`, values];
      }),
    );
    const names = new Set<string>();
    for (const key of Object.keys(this.#zone)) {
      for (let name = key.slice(key.indexOf(' ') + 1); name !== ''; name = parentOf(name)) names.add(name);
    }
    this.#names = names;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = [once(this.#udp, 'close'), once(this.#tcp, 'close')];
    this.#udp.close();
    this.#tcp.close();
    for (const socket of this.#connections) socket.destroy();
    await Promise.all(closed);
  }

  #converse(socket: TcpSocket): void {
    let held = Buffer.alloc(0);
    this.#connections.add(socket);
    socket.on('error', () => {}); // the resolver hangs up when it has heard enough
    socket.on('close', () => this.#connections.delete(socket));
    socket.on('data', (chunk) => {
      held = Buffer.concat([held, chunk]);
      // RFC 1035 §4.2.2: two octets of length stand before the message.
      while (held.length >= 2 && held.length >= 2 + held.readUInt16BE(0)) {
        const end = 2 + held.readUInt16BE(0);
        const answer = this.#answer(held.subarray(2, end), 65_535);
        held = held.subarray(end);
        if (answer === null) continue;
        const length = Buffer.alloc(2);
        length.writeUInt16BE(answer.length);
        socket.write(Buffer.concat([length, answer]));
      }
    });
  }

  /** null: silence. */
  #answer(query: Buffer, limit: number): Buffer | null {
    const { id, questions } = decode(query);
    const question = questions?.[0];
    const type = question?.type ?? 'A';
    const name = question?.name.toLowerCase() ?? '';
    this.asked.push(`${type} ${name}`);
    const found = this.#find(type, name);
    if (found === null) return null;
    const answer: Packet = {
      type: 'response',
      id: id ?? 0,
      flags: AUTHORITATIVE_ANSWER | found.rcode,
      questions: questions ?? [],
      answers: [...found.answers],
      authorities: found.answers.length === 0 ? [negative(this.#ttl)] : [],
    };
    const bytes = encode(answer);
    if (bytes.length <= limit) return bytes;
    return encode({ ...answer, flags: (answer.flags ?? 0) | TRUNCATED_RESPONSE, answers: [] });
  }

  #find(type: string, name: string): { readonly rcode: number; readonly answers: readonly Answer[] } | null {
    const answers: Answer[] = [];
    let asked = name;
    for (let hops = 0; hops <= CHAIN_LIMIT; hops++) {
      const owner = this.#owner(asked);
      if (owner === null) return { rcode: NXDOMAIN, answers };
      const values = this.#zone[`${type} ${owner}`];
      if (values !== undefined) {
        for (const value of values) answers.push(record(type, asked, value, this.#ttl));
        return { rcode: 0, answers };
      }
      if (this.#zone[`TIMEOUT ${owner}`] !== undefined) return null;
      for (const failure of ['SERVFAIL', 'REFUSED'] as const) {
        if (this.#zone[`${failure} ${owner}`] !== undefined) return { rcode: FAILURES[failure], answers: [] };
      }
      // RFC 1034 §4.3.2, 3a: the alias is put into the answer, and the search begins anew with what it stands for.
      const [alias] = this.#zone[`CNAME ${owner}`] ?? [];
      if (typeof alias !== 'string') return { rcode: 0, answers };
      answers.push(record('CNAME', asked, alias, this.#ttl));
      asked = alias.toLowerCase().replace(/\.$/, '');
    }
    return { rcode: FAILURES.SERVFAIL, answers: [] };
  }

  /** The name in the table that stands for this one; null: it does not exist. RFC 4592 §3.3.1: a wildcard below the closest name there is. */
  #owner(name: string): string | null {
    if (this.#names.has(name)) return name;
    let above = parentOf(name);
    while (above !== '' && !this.#names.has(above)) above = parentOf(above);
    const wildcard = `*.${above}`;
    return this.#names.has(wildcard) ? wildcard : null;
  }
}

function parentOf(name: string): string {
  const dot = name.indexOf('.');
  return dot === -1 ? '' : name.slice(dot + 1);
}

/** RFC 2308 §3: without an SOA a negative answer can't be cached. */
function negative(ttl: number): Answer {
  return {
    type: 'SOA',
    name: '.',
    ttl,
    data: {
      mname: 'ns.invalid',
      rname: 'root.invalid',
      serial: 1,
      refresh: ttl,
      retry: ttl,
      expire: ttl,
      minimum: ttl,
    },
  };
}

function record(type: string, name: string, value: string | readonly string[], ttl: number): Answer {
  if (type === 'TXT') {
    const strings = typeof value === 'string' ? (value.match(/.{1,255}/gs) ?? ['']) : value;
    return { type, name, ttl, data: strings.map((text) => Buffer.from(text, 'latin1')) };
  }
  if (typeof value !== 'string') throw new Error(`${type} records are one text each`);
  if (type === 'PTR' || type === 'CNAME') return { type, name, ttl, data: value };
  if (type === 'AAAA') return { type, name, ttl, data: value };
  if (type === 'MX') {
    const [preference = '0', exchange = ''] = value.split(' ');
    return { type, name, ttl, data: { preference: Number(preference), exchange } };
  }
  return { type: 'A', name, ttl, data: value };
}
