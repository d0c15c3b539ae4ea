import { connect, createServer, type Socket } from 'node:net';

/**
 * What becomes of a connection: passed on; never answered; answered with these words, whatever is said; closed at once. `refuse`: nobody listens.
 */
export type Conduct =
  | 'pass'
  | 'hang'
  | 'refuse'
  | 'close'
  | { readonly say: string }
  /** Passed on, what the server says so many milliseconds late. */
  | { readonly lateMs: number };

/** Stands between a client and a server on a loopback port, and can behave badly. */
export interface GoBetween extends AsyncDisposable {
  readonly port: number;
  /** Ends the connections there are; those that come from now on are treated so. */
  become(conduct: Conduct): Promise<void>;
}

/** @param target port of the server, which need not be there yet */
export async function startGoBetween(target: number): Promise<GoBetween> {
  let conduct: Conduct = 'pass';
  const sockets = new Set<Socket>();
  const keep = (socket: Socket): Socket => {
    sockets.add(socket);
    // A connection that breaks ends the other one; nothing else is to be told.
    return socket.on('error', () => socket.destroy()).on('close', () => sockets.delete(socket));
  };
  const server = createServer((socket) => {
    keep(socket);
    if (conduct === 'pass') {
      const onward = keep(connect(target, '127.0.0.1'));
      socket.on('close', () => onward.destroy());
      onward.on('close', () => socket.destroy());
      socket.pipe(onward).pipe(socket);
    } else if (typeof conduct === 'object' && 'lateMs' in conduct) {
      const { lateMs } = conduct;
      const onward = keep(connect(target, '127.0.0.1'));
      socket.on('close', () => onward.destroy());
      onward.on('close', () => socket.destroy());
      socket.pipe(onward);
      onward.on('data', (chunk: Buffer) => void setTimeout(() => socket.write(chunk), lateMs).unref());
    } else if (typeof conduct === 'object') {
      const { say } = conduct;
      socket.once('data', () => socket.end(say));
    } else if (conduct === 'close') socket.destroy();
  });
  const listen = (port: number): Promise<number> =>
    new Promise((resolve, reject) => {
      server.once('error', reject);
      server.listen(port, '127.0.0.1', () => {
        server.off('error', reject);
        const address = server.address();
        resolve(typeof address === 'object' && address !== null ? address.port : 0);
      });
    });
  const end = (): void => {
    for (const socket of sockets) socket.destroy();
  };
  const close = (): Promise<void> => new Promise((resolve) => server.close(() => resolve()));
  const port = await listen(0);
  return {
    port,
    async become(next) {
      if (next === 'refuse' && server.listening) {
        const closed = close();
        end();
        await closed;
      } else end();
      if (next !== 'refuse' && !server.listening) await listen(port);
      conduct = next;
    },
    async [Symbol.asyncDispose]() {
      const closed = close();
      end();
      await closed;
    },
  };
}
