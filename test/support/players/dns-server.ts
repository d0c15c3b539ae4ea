import { createSocket, type Socket } from 'node:dgram';

import { decode, encode, AUTHORITATIVE_ANSWER, type Answer } from 'dns-packet';

const SOA: Answer = {
  type: 'SOA',
  name: '.',
  ttl: 300,
  data: {
    mname: 'ns.invalid',
    rname: 'root.invalid',
    serial: 1,
    refresh: 300,
    retry: 300,
    expire: 300,
    minimum: 300,
  },
};

/** A name server for a few names: a zone from a table, NXDOMAIN for the rest. UDP only, on loopback. */
export class DnsServer implements AsyncDisposable {
  readonly #socket: Socket;
  readonly #zone: Readonly<Record<string, readonly string[]>>;

  private constructor(socket: Socket, zone: Readonly<Record<string, readonly string[]>>) {
    this.#socket = socket;
    this.#zone = zone;
  }

  /** Keys: `TXT name`, `A name`, `PTR name`, `MX name` (values `10 exchange`). */
  static async open(zone: Readonly<Record<string, readonly string[]>>): Promise<DnsServer> {
    const socket = createSocket('udp4');
    const server = new DnsServer(socket, zone);
    socket.on('message', (query, peer) => {
      socket.send(server.#answer(query), peer.port, peer.address);
    });
    await new Promise<void>((resolve, reject) => {
      socket.once('error', reject);
      socket.bind(0, '127.0.0.1', resolve);
    });
    return server;
  }

  get port(): number {
    return this.#socket.address().port;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await new Promise<void>((resolve) => this.#socket.close(resolve));
  }

  #answer(query: Buffer): Buffer {
    const { id, questions } = decode(query);
    const question = questions?.[0];
    const name = question?.name.toLowerCase() ?? '';
    const values = this.#zone[`${question?.type} ${name}`];
    const known = Object.keys(this.#zone).some((key) => key.endsWith(` ${name}`));
    const answers = (values ?? []).map((value) => record(question?.type ?? 'A', name, value));
    const NXDOMAIN = 3;
    const flags = AUTHORITATIVE_ANSWER | (known ? 0 : NXDOMAIN);
    // RFC 2308 §3: without an SOA a negative answer can't be cached.
    const authorities = answers.length === 0 ? [SOA] : [];
    return encode({ type: 'response', id: id ?? 0, flags, questions: questions ?? [], answers, authorities });
  }
}

function record(type: string, name: string, value: string): Answer {
  const ttl = 300;
  if (type === 'TXT') return { type, name, ttl, data: value.match(/.{1,255}/gs) ?? [''] };
  if (type === 'PTR') return { type, name, ttl, data: value };
  if (type === 'MX') {
    const [preference = '0', exchange = ''] = value.split(' ');
    return { type, name, ttl, data: { preference: Number(preference), exchange } };
  }
  return { type: 'A', name, ttl, data: value };
}
