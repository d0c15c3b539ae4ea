import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { createServer, type AddressInfo, type Server } from 'node:net';

import { decode, encode, streamEncode, type Answer, type Packet } from 'dns-packet';

import type { DnsServer } from '../../../src/adapters/dns.ts';

export interface Asked {
  readonly protocol: 'udp' | 'tcp';
  readonly id: number;
  readonly name: string;
  readonly type: string;
  readonly edns: number | null;
  /** Source port. */
  readonly port: number;
  /** The query as it came. */
  readonly bytes: Buffer;
}

/** Packets to send back; none: silence. */
export type Responder = (asked: Asked) => readonly Buffer[];

const RCODES = { noerror: 0, formerr: 1, servfail: 2, nxdomain: 3, notimp: 4, refused: 5 } as const;

export interface ReplyParts {
  readonly rcode?: keyof typeof RCODES;
  readonly answers?: readonly Answer[];
  readonly authorities?: readonly Answer[];
  readonly truncated?: boolean;
  /** AA. */
  readonly authoritative?: boolean;
  /** Overrides of what is echoed. */
  readonly id?: number;
  readonly name?: string;
}

/** A well-formed response to a question. */
export function reply(asked: Asked, parts: ReplyParts = {}): Buffer {
  return encode(packet(asked, parts));
}

function packet(asked: Asked, parts: ReplyParts): Packet {
  const { questions } = decode(asked.bytes);
  const echoed = (questions ?? []).map((question) => ({ ...question, name: parts.name ?? question.name }));
  return {
    type: 'response',
    id: parts.id ?? asked.id,
    flags:
      RCODES[parts.rcode ?? 'noerror'] |
      (parts.truncated === true ? 1 << 9 : 0) |
      (parts.authoritative === true ? 1 << 10 : 0),
    questions: echoed,
    answers: [...(parts.answers ?? [])],
    authorities: [...(parts.authorities ?? [])],
  };
}

/** A response with its length in front, for TCP. */
export function framed(asked: Asked, parts: ReplyParts = {}): Buffer {
  return streamEncode(packet(asked, parts));
}

export function txt(name: string, text: string, ttl = 300): Answer {
  return {
    type: 'TXT',
    name,
    ttl,
    data: text.match(/.{1,255}/gs)?.map((part) => Buffer.from(part, 'latin1')) ?? '',
  };
}

export function cname(name: string, target: string, ttl = 300): Answer {
  return { type: 'CNAME', name, ttl, data: target };
}

export function soa(name: string, ttl: number, minimum: number): Answer {
  return { type: 'SOA', name, ttl, data: { mname: 'ns.example', rname: 'admin.example', minimum } };
}

/** A name server on loopback that says whatever the test wants, over UDP and TCP on one port. */
export class NameServer implements AsyncDisposable {
  readonly asked: Asked[] = [];
  readonly #udp: Socket;
  readonly #tcp: Server;
  #respond: Responder;

  private constructor(udp: Socket, tcp: Server, respond: Responder) {
    this.#udp = udp;
    this.#tcp = tcp;
    this.#respond = respond;
  }

  static async open(respond: Responder): Promise<NameServer> {
    const tcp = createServer();
    tcp.listen(0, '127.0.0.1');
    await once(tcp, 'listening');
    const udp = createSocket('udp4');
    udp.bind(portOf(tcp), '127.0.0.1');
    await once(udp, 'listening');
    const server = new NameServer(udp, tcp, respond);
    udp.on('message', (bytes, peer) => {
      for (const packetOut of server.#hear('udp', bytes, peer.port))
        udp.send(packetOut, peer.port, peer.address);
    });
    tcp.on('connection', (socket) => {
      socket.on('error', () => {}); // the resolver hangs up when it has heard enough
      socket.on('data', (bytes) => {
        for (const packetOut of server.#hear('tcp', bytes.subarray(2), socket.remotePort ?? 0))
          socket.write(packetOut);
      });
    });
    return server;
  }

  get address(): DnsServer {
    return { host: '127.0.0.1', port: portOf(this.#tcp) };
  }

  respond(respond: Responder): void {
    this.#respond = respond;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = [once(this.#udp, 'close'), once(this.#tcp, 'close')];
    this.#udp.close();
    this.#tcp.close();
    await Promise.all(closed);
  }

  #hear(protocol: Asked['protocol'], bytes: Buffer, port: number): readonly Buffer[] {
    const { id, questions, additionals } = decode(bytes);
    const opt = additionals?.find((record) => record.type === 'OPT');
    const asked: Asked = {
      protocol,
      id: id ?? 0,
      name: questions?.[0]?.name ?? '',
      type: questions?.[0]?.type ?? '',
      edns: opt?.type === 'OPT' ? opt.udpPayloadSize : null,
      port,
      bytes,
    };
    this.asked.push(asked);
    return this.#respond(asked);
  }
}

function portOf(server: Server): number {
  const address: AddressInfo | string | null = server.address();
  if (address === null || typeof address === 'string') throw new Error('not listening on a port');
  return address.port;
}
