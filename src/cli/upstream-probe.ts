import { connect } from 'node:net';

import { formatSocketAddress, type SocketAddress } from '../config/values.ts';
import type { Log } from '../runtime/telemetry.ts';

const PROBE_TIMEOUT_MS = 2000;

/** Says in the log whether somebody listens where lmtp-filter delivers to. Information only: mail waits in Postfix's queue meanwhile. */
export async function reportUpstream(address: SocketAddress, log: Log): Promise<void> {
  const fields = { neighbour: 'dovecot', address: formatSocketAddress(address) };
  const error = await connectError(address);
  if (error === null) log.info({ ...fields, state: 'there' }, 'neighbour');
  else log.warn({ ...fields, state: 'not there', why: error.message }, 'neighbour');
}

function connectError(address: SocketAddress): Promise<Error | null> {
  return new Promise((resolve) => {
    const socket = connect(
      address.kind === 'unix' ? { path: address.path } : { host: address.host, port: address.port },
    );
    const done = (result: Error | null): void => {
      socket.destroy();
      resolve(result);
    };
    socket.setTimeout(PROBE_TIMEOUT_MS, () => done(new Error(`no connection within ${PROBE_TIMEOUT_MS} ms`)));
    socket.once('connect', () => done(null));
    socket.on('error', done);
  });
}
