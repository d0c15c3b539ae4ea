import { createSocket } from 'node:dgram';
import { once } from 'node:events';

import { encode } from 'dns-packet';

import { startBind, type Bind } from './bind.ts';
import { withDeadline, DEFAULT_DEADLINE_MS } from './deadline.ts';

/** RFC 1996 §3.6: opcode 4, with AA. */
const NOTIFY_FLAGS = (4 << 11) | (1 << 10);

export interface Secondary {
  readonly bind: Bind;
  /** Copies the zone from the primary now; until then it stays as it was. */
  catchUp(): Promise<void>;
}

/** A second name server of a zone, whom the primary never tells of a change: it lags until it is asked to catch up. */
export async function startSecondary(
  cleanup: AsyncDisposableStack,
  primary: Bind,
  zone: string,
): Promise<Secondary> {
  const bind = cleanup.use(
    await startBind({
      zones: {},
      extra: `zone "${zone}" { type secondary; primaries { 127.0.0.1 port ${primary.port}; }; file "copy"; };`,
    }),
  );
  const copied = /zone \S+\/IN: transferred serial|Transfer status: success/;
  await bind.waitForLog(copied);
  return {
    bind,
    async catchUp() {
      const after = bind.mark();
      const socket = createSocket('udp4');
      try {
        const answered = once(socket, 'message');
        socket.send(
          encode({ type: 'query', id: 1, flags: NOTIFY_FLAGS, questions: [{ type: 'SOA', name: zone }] }),
          bind.port,
          '127.0.0.1',
        );
        await withDeadline(answered, DEFAULT_DEADLINE_MS, 'the secondary did not answer the NOTIFY');
      } finally {
        socket.close();
      }
      await bind.waitForLog(copied, after);
    },
  };
}
