import type { EventEmitter } from 'node:events';
import { Socket } from 'node:net';

import { Connections } from './connections.ts';
import type { Listener } from './listener.ts';
import { seriesOf } from './summed-metrics.ts';
import type { Registry } from './telemetry.ts';
import { toWorker, type FromWorker } from './worker-messages.ts';

/** The channel to the process that listens: `process`, in a worker. */
export interface Channel extends EventEmitter {
  readonly connected: boolean;
  send?(message: unknown, callback: (error: Error | null) => void): boolean;
  disconnect?(): void;
}

export interface SeatOptions {
  readonly channel: Channel;
  /** Of the listener, for log lines. */
  readonly text: string;
  readonly maxConnections: number;
}

/** A worker's place: connections and orders come from the process that listens. */
export class WorkerSeat {
  readonly #channel: Channel;
  readonly #stop = Promise.withResolvers<void>();
  readonly #cut = new AbortController();
  readonly #connections: Connections;
  #reload: (() => void) | null = null;
  #reloadWanted = false;
  #registry: Registry | null = null;
  readonly listener: Listener;

  constructor({ channel, text, maxConnections }: SeatOptions) {
    this.#channel = channel;
    this.#connections = new Connections(maxConnections);
    this.listener = new GivenListener(text, this.#connections);
    channel.on('message', (message: unknown, socket: unknown) => this.#heard(message, socket));
    // Nobody gives or orders anything any more: what is under way is finished.
    channel.on('disconnect', () => this.#stop.resolve());
  }

  /** Resolves when it is to end. */
  get stopAsked(): Promise<void> {
    return this.#stop.promise;
  }

  /** Aborts when what is under way is to be cut off. */
  get cut(): AbortSignal {
    return this.#cut.signal;
  }

  onReload(reload: () => void): void {
    this.#reload = reload;
    if (this.#reloadWanted) reload();
  }

  /** At work from now on, counting in `registry`. */
  ready(registry: Registry): void {
    this.#registry = registry;
    this.#tell({ kind: 'ready' });
  }

  /** The last message: what was counted. */
  async leave(): Promise<void> {
    if (this.#registry !== null) {
      await this.#send({ kind: 'metrics', question: null, series: await seriesOf(this.#registry) });
    }
    if (this.#channel.connected) this.#channel.disconnect?.();
  }

  #heard(message: unknown, socket: unknown): void {
    const told = toWorker(message);
    switch (told.kind) {
      case 'connection':
        this.#tell({ kind: 'taken', id: told.id });
        // It may have been closed on its way.
        if (socket instanceof Socket) this.#take(socket);
        else this.#tell({ kind: 'closed' });
        break;
      case 'metrics':
        void this.#answer(told.question);
        break;
      case 'reload':
        this.#reloadWanted = true;
        this.#reload?.();
        break;
      case 'stop':
        this.#stop.resolve();
        break;
      case 'cut':
        this.#cut.abort(new Error('the time for a graceful stop is over'));
        break;
    }
  }

  #take(socket: Socket): void {
    socket.once('close', () => this.#tell({ kind: 'closed' }));
    this.#connections.add(socket);
  }

  async #answer(question: number): Promise<void> {
    if (this.#registry === null) return;
    await this.#send({ kind: 'metrics', question, series: await seriesOf(this.#registry) });
  }

  #tell(message: FromWorker): void {
    void this.#send(message);
  }

  /** Whoever is not there any more needs no answer: `disconnect` says what follows from that. */
  #send(message: FromWorker): Promise<void> {
    return new Promise((resolve) => {
      if (!this.#channel.connected || this.#channel.send === undefined) resolve();
      else this.#channel.send(message, () => resolve());
    });
  }
}

/** Connections that another process has accepted. */
class GivenListener implements Listener {
  readonly text: string;
  readonly port = null;
  readonly #connections: Connections;

  constructor(text: string, connections: Connections) {
    this.text = text;
    this.#connections = connections;
  }

  get connections(): ReadonlySet<Socket> {
    return this.#connections.open;
  }

  serve(onConnection: (socket: Socket) => void, onRefused?: (socket: Socket) => void): void {
    this.#connections.serve(onConnection, onRefused);
  }

  /** The other process has stopped to accept before it says so. */
  close(): Promise<void> {
    return Promise.resolve();
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#connections.destroy();
    return Promise.resolve();
  }
}
