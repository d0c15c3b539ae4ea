import { connect, createServer, type Socket } from 'node:net';

/**
 * Where a dialogue of questions and answers is. `connect` and `asking` are told before anything is passed on, `asked` when the question is on
 * its way, `answered` when the answer has come, `told` when it was passed on.
 */
export type StreamStep = 'connect' | 'asking' | 'asked' | 'answered' | 'told';

export interface StreamTap extends AsyncDisposable {
  readonly port: number;
  /** Called at each step of every connection, before anything else happens. */
  onStep: (step: StreamStep) => void;
}

/** Stands between clients and a server on loopback, whatever they speak, and passes everything on. @param target the server's port */
export async function startStreamTap(target: number): Promise<StreamTap> {
  const sockets = new Set<Socket>();
  const server = createServer({ noDelay: true, allowHalfOpen: true }, (client) => {
    tap.onStep('connect');
    const behind = connect({ port: target, host: '127.0.0.1', noDelay: true, allowHalfOpen: true });
    couple(client, behind, ['asking', 'asked']);
    couple(behind, client, ['answered', 'told']);
  });

  function couple(from: Socket, to: Socket, [before, after]: readonly [StreamStep, StreamStep]): void {
    sockets.add(from);
    from.on('data', (piece: Buffer) => {
      tap.onStep(before);
      if (!to.destroyed && !to.write(piece)) from.pause();
      tap.onStep(after);
    });
    to.on('drain', () => from.resume());
    from.on('end', () => to.end());
    // A connection that breaks ends the other one; nothing else is to be told.
    from.on('error', () => from.destroy());
    from.on('close', () => {
      sockets.delete(from);
      to.destroySoon();
    });
  }

  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  if (typeof address !== 'object' || address === null) throw new Error('not listening');
  const tap: StreamTap = {
    port: address.port,
    onStep: () => {},
    async [Symbol.asyncDispose]() {
      const closed = new Promise((resolve) => server.close(resolve));
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
  return tap;
}
