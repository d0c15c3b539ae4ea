import { connect, type Socket } from 'node:net';

/** A TCP port on loopback, or the path of a unix socket. */
export type Target = { readonly port: number } | { readonly path: string };

export async function dial(target: Target): Promise<Socket> {
  const socket = connect({ ...('port' in target ? { host: '127.0.0.1' } : {}), ...target, noDelay: true });
  await new Promise<void>((resolve, reject) => {
    socket.once('connect', resolve);
    socket.once('error', reject);
  });
  return socket;
}

/** Bytes as they come, handed out by the rule of whoever reads: `take` gives null as long as it wants more. */
export class Inbox {
  #held: Buffer = Buffer.alloc(0);
  #ended = false;
  #wake: (() => void) | null = null;

  constructor(socket: Socket) {
    socket.on('data', (chunk: Buffer) => {
      this.#held = this.#held.length === 0 ? chunk : Buffer.concat([this.#held, chunk]);
      this.#wake?.();
    });
    const end = (): void => {
      this.#ended = true;
      this.#wake?.();
    };
    socket.on('close', end);
    socket.on('error', end);
  }

  /** `take` returns what it read and how many bytes that was. Null when the peer closed first. */
  async next<T>(
    take: (held: Buffer) => { readonly value: T; readonly used: number } | null,
  ): Promise<T | null> {
    for (;;) {
      const taken = take(this.#held);
      if (taken !== null) {
        this.#held = this.#held.subarray(taken.used);
        return taken.value;
      }
      if (this.#ended) return null;
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#wake = resolve;
      await promise;
    }
  }
}
