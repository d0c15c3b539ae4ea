import { chmod, chown, readFile, unlink } from 'node:fs/promises';
import { createServer, connect, type Server, type Socket } from 'node:net';

/** Where to listen. `mode` and `group` are for unix sockets. */
export interface ListenerOptions {
  readonly address:
    | { readonly kind: 'tcp'; readonly host: string; readonly port: number }
    | { readonly kind: 'unix'; readonly path: string };
  readonly mode: number;
  /** Name or number; null: left as it is. */
  readonly group: string | null;
  /** Connections at once; what comes above is handed to `onRefused` and closed. */
  readonly maxConnections: number;
}

/** An open listening socket. Connections wait in the kernel's backlog until `serve` is called. */
export interface Listener extends AsyncDisposable {
  /** As the configuration writes it, with the port that was really taken. */
  readonly text: string;
  /** The port; null for a unix socket. */
  readonly port: number | null;
  /** Open connections. */
  readonly connections: ReadonlySet<Socket>;
  /** Starts handing over connections. Called once. `onRefused` may write one last line; the socket is ended afterwards. */
  serve(onConnection: (socket: Socket) => void, onRefused?: (socket: Socket) => void): void;
  /** Stops accepting; connections that are open stay open. Resolves when the socket is closed to newcomers. */
  close(): Promise<void>;
}

/** @throws {Error} with what, where and how to mend it */
export async function openListener(options: ListenerOptions): Promise<Listener> {
  const { address } = options;
  const server = createServer({ noDelay: true, pauseOnConnect: true });
  if (address.kind === 'unix') await removeStaleSocket(address.path);
  await listening(server, address);
  if (address.kind === 'unix') {
    await chmod(address.path, options.mode);
    if (options.group !== null) await chown(address.path, -1, await groupNumber(options.group));
  }
  return new NetListener(server, options);
}

class NetListener implements Listener {
  readonly #server: Server;
  readonly #max: number;
  readonly #open = new Set<Socket>();
  readonly #waiting: Socket[] = [];
  #accept: ((socket: Socket) => void) | null = null;
  #closing: Promise<void> | null = null;
  readonly text: string;
  readonly port: number | null;

  constructor(server: Server, options: ListenerOptions) {
    this.#server = server;
    this.#max = options.maxConnections;
    const bound = server.address();
    this.port = typeof bound === 'object' && bound !== null ? bound.port : null;
    this.text =
      options.address.kind === 'unix'
        ? `unix:${options.address.path}`
        : `${options.address.host.includes(':') ? `[${options.address.host}]` : options.address.host}:${this.port}`;
    server.on('connection', (socket) => {
      if (this.#accept === null) this.#waiting.push(socket);
      else this.#accept(socket);
    });
  }

  get connections(): ReadonlySet<Socket> {
    return this.#open;
  }

  serve(onConnection: (socket: Socket) => void, onRefused: (socket: Socket) => void = () => {}): void {
    this.#accept = (socket) => {
      if (this.#open.size >= this.#max) {
        socket.on('error', () => socket.destroy());
        onRefused(socket);
        socket.end(() => socket.destroy());
        return;
      }
      this.#open.add(socket);
      socket.once('close', () => this.#open.delete(socket));
      onConnection(socket);
      socket.resume();
    };
    for (const socket of this.#waiting.splice(0)) this.#accept(socket);
  }

  close(): Promise<void> {
    // The callback of close() waits for the last connection to end; a stop must not, so only the listening socket counts here.
    this.#closing ??= new Promise((resolve) => {
      this.#server.close();
      setImmediate(resolve);
    });
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
    for (const socket of this.#open) socket.destroy();
    for (const socket of this.#waiting) socket.destroy();
  }
}

function listening(server: Server, address: ListenerOptions['address']): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      const where = address.kind === 'unix' ? `unix:${address.path}` : `${address.host}:${address.port}`;
      const advice =
        error.code === 'EADDRINUSE'
          ? 'another program listens there: stop it, or change the listen address'
          : error.code === 'EACCES'
            ? 'not permitted: choose a port above 1023, or a folder this user may write to'
            : 'check the address';
      reject(
        new Error(`cannot listen on ${where} (${error.code ?? error.message}): ${advice}`, { cause: error }),
      );
    });
    const target =
      address.kind === 'unix' ? { path: address.path } : { host: address.host, port: address.port };
    server.listen({ ...target, backlog: 1024 }, resolve);
  });
}

/** A killed process leaves its socket behind: removed only when nobody answers there. */
async function removeStaleSocket(path: string): Promise<void> {
  const state = await new Promise<'answers' | 'refused' | 'absent'>((resolve) => {
    const probe = connect({ path });
    probe.once('connect', () => {
      probe.destroy();
      resolve('answers');
    });
    probe.once('error', (error: NodeJS.ErrnoException) => {
      resolve(error.code === 'ECONNREFUSED' ? 'refused' : 'absent');
    });
  });
  if (state === 'refused') await unlink(path);
}

async function groupNumber(group: string): Promise<number> {
  if (/^\d+$/.test(group)) return Number(group);
  for (const line of (await readFile('/etc/group', 'utf8')).split('\n')) {
    const [name, , id] = line.split(':');
    if (name === group && id !== undefined) return Number(id);
  }
  throw new Error(`no group named "${group}" on this machine: name one of /etc/group, or a number`);
}
