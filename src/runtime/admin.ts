import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';

import type { Listener } from './listener.ts';

/** What /readyz answers. */
export interface Readiness {
  /** Whether mail can be taken: all listeners serve, and none is being stopped. */
  readonly ready: boolean;
  /** Daemon → address. */
  readonly listeners: Readonly<Record<string, string>>;
  /** Neighbour → state in words. For people only: a neighbour that is down must not take us out of service, the rules say what it means. */
  readonly neighbours: Readonly<Record<string, string>>;
}

/** What /metrics answers; a registry is one. */
export interface Exposition {
  readonly contentType: string;
  metrics(): Promise<string>;
}

export interface AdminOptions {
  readonly registry: Exposition;
  readonly readiness: () => Readiness;
}

/** One request per connection, from the first octet to the last of the answer. */
const CONNECTION_TIMEOUT_MS = 10_000;
const MAX_HEADER_SIZE = 8 * 1024;

interface Answer {
  readonly status: 200 | 404 | 405 | 500 | 503;
  readonly type: string;
  readonly body: string;
}

const TEXT = 'text/plain; charset=utf-8';

/** Metrics and health over HTTP: GET /metrics, /healthz, /readyz. Lives as long as the listener does. */
export function serveAdmin(listener: Listener, options: AdminOptions): void {
  const server = createServer({ maxHeaderSize: MAX_HEADER_SIZE }, (request, response) => {
    void respond(request, response, options);
  });
  server.maxRequestsPerSocket = 1;
  listener.serve((socket) => {
    limitTime(socket);
    server.emit('connection', socket);
  });
}

/** node:http watches its own timeouts only on sockets it listens on itself. */
function limitTime(socket: Socket): void {
  const timer = setTimeout(() => socket.destroy(), CONNECTION_TIMEOUT_MS);
  socket.once('close', () => clearTimeout(timer));
}

async function respond(
  request: IncomingMessage,
  response: ServerResponse,
  options: AdminOptions,
): Promise<void> {
  const { status, type, body } = await answer(request, options);
  response.writeHead(status, {
    'Content-Type': type,
    'Content-Length': Buffer.byteLength(body),
    'Cache-Control': 'no-store',
    Connection: 'close',
    ...(status === 405 ? { Allow: 'GET, HEAD' } : {}),
  });
  response.end(request.method === 'HEAD' ? undefined : body);
}

async function answer(request: IncomingMessage, { registry, readiness }: AdminOptions): Promise<Answer> {
  const path = (request.url ?? '').replace(/\?.*$/s, '');
  if (path !== '/metrics' && path !== '/healthz' && path !== '/readyz') {
    return { status: 404, type: TEXT, body: 'not found: there are /metrics, /healthz and /readyz\n' };
  }
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    return { status: 405, type: TEXT, body: 'only GET and HEAD\n' };
  }
  switch (path) {
    case '/healthz':
      return { status: 200, type: TEXT, body: 'ok\n' }; // that this is answered shows that the event loop turns
    case '/readyz': {
      const state = readiness();
      const body = `${JSON.stringify(state, null, 2)}\n`;
      return { status: state.ready ? 200 : 503, type: 'application/json', body };
    }
    case '/metrics':
      try {
        return { status: 200, type: registry.contentType, body: await registry.metrics() };
      } catch (error) {
        const why = error instanceof Error ? error.message : 'unknown error';
        return { status: 500, type: TEXT, body: `metrics could not be collected: ${why}\n` };
      }
  }
}
