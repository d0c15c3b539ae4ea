import { type RemoteInfo, createSocket } from 'node:dgram';
import { once } from 'node:events';
import { type Socket, connect, createServer } from 'node:net';
import { privateLoopbackAddress } from './ports.ts';

const WELL_KNOWN_PORT = 53;
const TRIES = 20;
const QUERY_DEADLINE_MS = 5_000;

export interface DnsForwarder extends AsyncDisposable {
  /** An address of 127.0.0.0/8 that answers on port 53. */
  readonly address: string;
}

/**
 * Port 53 on an address of its own, which resolv.conf can name, in front of a name server on any port. named itself
 * cannot: it listens only where an interface has an address, and lo has 127.0.0.1 alone.
 */
export async function startDnsForwarder(port: number): Promise<DnsForwarder> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await forward(privateLoopbackAddress(), port);
    } catch (error) {
      if (attempt === TRIES) throw error;
    }
  }
}

async function forward(address: string, port: number): Promise<DnsForwarder> {
  await using cleanup = new AsyncDisposableStack();
  const connections = new Set<Socket>();
  const tcp = createServer({ noDelay: true }, (client) => {
    const server = connect({ host: '127.0.0.1', port, noDelay: true });
    for (const [from, to] of [
      [client, server],
      [server, client],
    ] as const) {
      connections.add(from);
      from.on('error', () => to.destroy());
      from.on('close', () => {
        connections.delete(from);
        to.destroy();
      });
      from.pipe(to);
    }
  });
  tcp.listen({ host: address, port: WELL_KNOWN_PORT });
  await once(tcp, 'listening');
  cleanup.defer(async () => {
    const closed = once(tcp, 'close');
    tcp.close();
    for (const connection of connections) connection.destroy();
    await closed;
  });

  let stopped = false;
  const udp = createSocket('udp4');
  cleanup.defer(() => void udp.close());
  udp.on('message', (query, client) => ask(query, client));
  udp.bind({ address, port: WELL_KNOWN_PORT, exclusive: true });
  await once(udp, 'listening');

  // A socket for each query keeps equal ids of two clients apart; it goes with its answer.
  function ask(query: Buffer, client: RemoteInfo): void {
    const upstream = createSocket('udp4');
    const close = () => void upstream.close();
    const deadline = setTimeout(close, QUERY_DEADLINE_MS);
    deadline.unref();
    upstream.unref();
    upstream.once('error', () => undefined);
    upstream.once('message', (answer) => {
      clearTimeout(deadline);
      close();
      if (!stopped) udp.send(answer, client.port, client.address);
    });
    upstream.send(query, port, '127.0.0.1');
  }

  cleanup.defer(() => {
    stopped = true;
  });
  const owned = cleanup.move();
  return { address, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}
