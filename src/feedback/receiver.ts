import type { Socket } from 'node:net';

import type { Listener } from '../runtime/listener.ts';
import type { LabelledMail } from './collector.ts';
import type { FeedbackFault } from './metrics.ts';
import {
  HEAD_END,
  parseScriptHead,
  SCRIPT_HEAD_LIMIT,
  ScriptFault,
  type ScriptRequest,
} from './script-request.ts';

export interface ReceiverOptions {
  /** Octets of a message that are kept; of a larger one no more are. */
  readonly maxSize: () => number;
  /** Resolves once it is kept. */
  readonly take: (mail: LabelledMail) => Promise<void>;
  readonly onFault: (fault: FeedbackFault, error?: unknown) => void;
  readonly onRefused: () => void;
}

/** From the connection to the answer. Dovecot itself waits 10 s for a program (sieve_pipe_exec_timeout). */
export const RECEIVE_TIMEOUT_MS = 30_000;

const KEPT = '+\n';
const NOT_KEPT = '-\n';

/** Takes what Dovecot pipes: one message on each connection, answered when it is kept. */
export class Receiver {
  readonly #listener: Listener;
  readonly #options: ReceiverOptions;

  constructor(listener: Listener, options: ReceiverOptions) {
    this.#listener = listener;
    this.#options = options;
    listener.serve(
      (socket) => void this.#serve(socket),
      () => options.onRefused(),
    );
  }

  /** Takes what is on its way; when `signal` aborts, connections are cut. */
  async stop(signal: AbortSignal): Promise<void> {
    await this.#listener.close();
    const sockets = [...this.#listener.connections];
    const closed = sockets.map((socket) => new Promise((resolve) => socket.once('close', resolve)));
    const cut = (): void => {
      for (const socket of sockets) socket.destroy();
    };
    signal.addEventListener('abort', cut, { once: true });
    if (signal.aborted) cut();
    await Promise.all(closed);
    signal.removeEventListener('abort', cut);
  }

  async #serve(socket: Socket): Promise<void> {
    // The message ends with the sender's half of the connection; ours is still to carry the answer.
    socket.allowHalfOpen = true;
    const { onFault } = this.#options;
    const late = setTimeout(() => {
      onFault('slow');
      socket.destroy();
    }, RECEIVE_TIMEOUT_MS);
    let answer = NOT_KEPT;
    try {
      const mail = await receive(socket, this.#options.maxSize());
      if (mail !== null) {
        await this.#options.take(mail);
        answer = KEPT;
      } else if (!socket.destroyed) onFault('broken-off');
    } catch (error) {
      onFault(error instanceof ScriptFault ? 'protocol' : 'not-kept', error);
    } finally {
      clearTimeout(late);
    }
    if (!socket.destroyed) socket.end(answer, () => socket.destroy());
  }
}

/** The request that comes on this connection; null: the connection broke, or ended within its head. @throws {ScriptFault} */
function receive(socket: Socket, maxSize: number): Promise<LabelledMail | null> {
  const { promise, resolve, reject } = Promise.withResolvers<LabelledMail | null>();
  let head = Buffer.alloc(0);
  let request: ScriptRequest | null = null;
  const chunks: Buffer[] = [];
  let size = 0;
  let complete = true;
  const keep = (chunk: Buffer): void => {
    const room = maxSize - size;
    if (chunk.length > room) complete = false;
    const kept = chunk.length > room ? chunk.subarray(0, room) : chunk;
    if (kept.length === 0) return;
    size += kept.length;
    chunks.push(kept);
  };
  socket.on('data', (chunk: Buffer) => {
    if (request !== null) {
      keep(chunk);
      return;
    }
    head = Buffer.concat([head, chunk]);
    const end = head.indexOf(HEAD_END);
    if (end > SCRIPT_HEAD_LIMIT || (end === -1 && head.length > SCRIPT_HEAD_LIMIT)) {
      socket.pause();
      reject(new ScriptFault(`the head of the request is longer than ${SCRIPT_HEAD_LIMIT} octets`));
      return;
    }
    if (end === -1) return;
    try {
      request = parseScriptHead(head.toString('utf8', 0, end));
    } catch (error) {
      socket.pause();
      reject(error instanceof Error ? error : new Error('unknown error'));
      return;
    }
    keep(head.subarray(end + HEAD_END.length));
  });
  socket.once('end', () => {
    resolve(request === null ? null : { ...request, octets: Buffer.concat(chunks, size), complete });
  });
  // It is followed by "close".
  socket.on('error', () => undefined);
  socket.once('close', () => resolve(null));
  return promise;
}
