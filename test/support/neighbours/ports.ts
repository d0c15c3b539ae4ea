import { readFileSync } from 'node:fs';
import { createServer } from 'node:net';

const LOWEST_PORT = 20_000;
const FALLBACK_HIGHEST_PORT = 32_767;
const TRIES = 200;

/** Test files run at the same time, each in a process of its own (VITEST_POOL_ID counts them from 1), and draw from parts of the range that have no port in common. */
const PARTS = 8;

// Two servers of one test file can both be between "port found" and "port bound".
const handedOut = new Set<number>();

/**
 * A loopback port that nobody listens on. It is taken from below the range from which the kernel picks source ports,
 * so that no outgoing connection can sit on it while its server is being restarted.
 */
export async function freePort(): Promise<number> {
  const highest = highestPort();
  const part = Number(process.env['VITEST_POOL_ID'] ?? 0) % PARTS;
  for (let attempt = 0; attempt < TRIES; attempt += 1) {
    const drawn = Math.floor(Math.random() * Math.floor((highest - LOWEST_PORT + 1) / PARTS));
    const port = LOWEST_PORT + drawn * PARTS + part;
    if (handedOut.has(port)) continue;
    handedOut.add(port);
    if (await canBind(port)) return port;
  }
  throw new Error(`no free port found between ${LOWEST_PORT} and ${highest}`);
}

/** An own loopback address, for a server that must have a well-known port, such as a name server on port 53. */
export function privateLoopbackAddress(): string {
  return `127.${octet()}.${octet()}.${octet()}`;
}

function octet(): number {
  return 1 + Math.floor(Math.random() * 254);
}

function highestPort(): number {
  try {
    const [lowestSourcePort = ''] = readFileSync('/proc/sys/net/ipv4/ip_local_port_range', 'utf8').split(
      /\s+/,
    );
    const highest = Number(lowestSourcePort) - 1;
    return highest > LOWEST_PORT + 1_000 ? Math.min(highest, FALLBACK_HIGHEST_PORT) : FALLBACK_HIGHEST_PORT;
  } catch {
    return FALLBACK_HIGHEST_PORT;
  }
}

function canBind(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen({ host: '127.0.0.1', port, exclusive: true }, () => server.close(() => resolve(true)));
  });
}
