import { chmod, chown, lstat, readFile, stat, unlink } from 'node:fs/promises';
import { createServer, connect, type Server, type Socket } from 'node:net';
import { dirname } from 'node:path';

import { Connections } from './connections.ts';

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
  /** Told when a connection could not be taken; the listener goes on. */
  readonly onError?: (error: Error) => void;
}

/** An open listening socket. Connections that come before `serve` is called are held, unread, up to `maxConnections`. */
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

const BACKLOG = 1024;
/** How long a socket that may be stale has to answer. */
const PROBE_TIMEOUT_MS = 2000;

const NO_SUCH_ADDRESS = 'this machine has no such address: change the listen address';
const ADVICE: Readonly<Record<string, string>> = {
  EADDRINUSE: 'another program listens there: stop it, or change the listen address',
  EACCES: 'not permitted: choose a port above 1023, or a folder this user may write to',
  EADDRNOTAVAIL: NO_SUCH_ADDRESS,
  ENOTFOUND: NO_SUCH_ADDRESS,
  ENOTDIR: 'what should be the folder of the socket is none',
  ENOENT: 'the folder of the socket is not there: make it, owned by the user this runs as',
};

/** One whose connections can be given away, to be served by another process. */
export interface OpenListener extends Listener {
  /** In place of `serve`: connections come paused, nothing of them was read, and none is counted here. */
  handOver(take: (socket: Socket) => void): void;
}

/** @throws {Error} with what, where and how to mend it */
export async function openListener(options: ListenerOptions): Promise<OpenListener> {
  const { address } = options;
  const server = createServer({ noDelay: true, pauseOnConnect: true });
  if (address.kind === 'unix') await removeStaleSocket(address.path);
  await listening(server, address);
  const listener = new NetListener(server, options);
  if (address.kind === 'unix') {
    try {
      await chmod(address.path, options.mode);
      if (options.group !== null) await chown(address.path, -1, await groupNumber(options.group));
    } catch (error) {
      await listener[Symbol.asyncDispose]();
      const what = `cannot set owner and permissions of unix:${address.path}`;
      throw new Error(`${what}: ${error instanceof Error ? error.message : 'unknown error'}`, {
        cause: error,
      });
    }
  }
  return listener;
}

class NetListener implements OpenListener {
  readonly #server: Server;
  readonly #connections: Connections;
  #closing: Promise<void> | null = null;
  readonly text: string;
  readonly port: number | null;

  constructor(server: Server, options: ListenerOptions) {
    this.#server = server;
    this.#connections = new Connections(options.maxConnections);
    const bound = server.address();
    this.port = typeof bound === 'object' && bound !== null ? bound.port : null;
    this.text =
      options.address.kind === 'unix'
        ? `unix:${options.address.path}`
        : `${options.address.host.includes(':') ? `[${options.address.host}]` : options.address.host}:${this.port}`;
    // An accept() that fails is an event here; without a listener for it, whoever makes it fail would end the process.
    server.on('error', (error) => options.onError?.(error));
    server.on('connection', (socket) => this.#connections.add(socket));
  }

  get connections(): ReadonlySet<Socket> {
    return this.#connections.open;
  }

  serve(onConnection: (socket: Socket) => void, onRefused?: (socket: Socket) => void): void {
    this.#connections.serve(onConnection, onRefused);
  }

  handOver(take: (socket: Socket) => void): void {
    this.#connections.handOver(take);
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
    this.#connections.destroy();
  }
}

function listening(server: Server, address: ListenerOptions['address']): Promise<void> {
  return new Promise((resolve, reject) => {
    const failed = (error: NodeJS.ErrnoException): void => {
      reject(
        address.kind === 'unix'
          ? notHere(address.path, error)
          : cannotListen(`${address.host}:${address.port}`, error),
      );
    };
    server.once('error', failed);
    const target =
      address.kind === 'unix' ? { path: address.path } : { host: address.host, port: address.port };
    server.listen({ ...target, backlog: BACKLOG }, () => {
      server.off('error', failed);
      resolve();
    });
  });
}

function notHere(path: string, error: NodeJS.ErrnoException): Error {
  return cannotListen(`unix:${path}`, error);
}

function cannotListen(where: string, error: NodeJS.ErrnoException): Error {
  const advice = ADVICE[error.code ?? ''] ?? 'check the address';
  return new Error(`cannot listen on ${where} (${error.code ?? error.message}): ${advice}`, { cause: error });
}

/** A killed process leaves its socket behind: removed only when nobody answers there. */
async function removeStaleSocket(path: string): Promise<void> {
  const found = await lstat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return null;
    throw notHere(path, error);
  });
  if (found === null) {
    // listen() would call a missing folder EACCES.
    await stat(dirname(path)).catch((error: NodeJS.ErrnoException) => {
      throw notHere(path, error);
    });
    return;
  }
  if (!found.isSocket()) {
    throw new Error(
      `cannot listen on unix:${path}: there is something that is not a socket; remove it, or choose another path`,
    );
  }
  if (await nobodyAnswers(path)) await unlink(path);
}

function nobodyAnswers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect({ path });
    const done = (nobody: boolean): void => {
      probe.destroy();
      resolve(nobody);
    };
    probe.setTimeout(PROBE_TIMEOUT_MS, () => done(false));
    probe.once('connect', () => done(false));
    probe.on('error', (error: NodeJS.ErrnoException) => done(error.code === 'ECONNREFUSED'));
  });
}

/** @throws {Error} when there is no such group */
export async function groupNumber(group: string): Promise<number> {
  if (/^\d+$/.test(group)) return Number(group);
  for (const line of (await readFile('/etc/group', 'utf8')).split('\n')) {
    const [name, , id] = line.split(':');
    if (name === group && id !== undefined) return Number(id);
  }
  throw new Error(`no group named "${group}" on this machine: name one of /etc/group, or a number`);
}
