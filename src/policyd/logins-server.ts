import { createHash, timingSafeEqual } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';

import type { Listener } from '../runtime/listener.ts';
import type { LoginFault } from './logins-metrics.ts';
import { LOGIN_COMMANDS, parseLoginRequest, type LoginCommand, type LoginRequest } from './logins-request.ts';
import type { LoginAnswer } from './logins-responder.ts';

/** The path that `postern wire dovecot` names; Dovecot appends `?command=…`. */
const LOGINS_PATH = '/logins';
/** The header that carries the secret. */
const KEY_HEADER = 'x-api-key';

/**
 * Requests have some 200 octets; but what is not read is not counted, and Dovecot lets it pass. A login of 6000 octets, the most that
 * AUTHENTICATE takes, and a long ID come to 43,000 when JSON escapes each octet of theirs (measured with Dovecot 2.3.19).
 */
export const BODY_LIMIT = 64 * 1024;
const MAX_HEADER_SIZE = 8 * 1024;
/** From the header section to the end of the answer; Dovecot itself waits 2 s (auth_policy_server_timeout_msecs). */
const REQUEST_TIMEOUT_MS = 5000;
/** Between requests; Dovecot opens a new connection when it needs one. */
const IDLE_TIMEOUT_MS = 60_000;

export interface LoginsServerOptions {
  /** What `X-API-Key` must say; null: whoever reaches the socket may ask. */
  readonly apiKey: () => string | null;
  readonly answer: (request: LoginRequest) => Promise<LoginAnswer>;
  readonly onFault: (fault: LoginFault, error?: unknown) => void;
  readonly onConnection: (delta: 1 | -1) => void;
  readonly onRefused: () => void;
}

interface HttpAnswer {
  readonly status: 200 | 400 | 401 | 404 | 405 | 413 | 500;
  readonly body: string;
}

/** Dovecot's authentication policy over HTTP/1.1 on the connections of a listener. */
export class LoginsServer {
  readonly #listener: Listener;
  readonly #options: LoginsServerOptions;
  readonly #http: Server;
  readonly #timers = new Map<Socket, NodeJS.Timeout>();
  readonly #busy = new Map<Socket, number>();
  #stopping = false;

  constructor(listener: Listener, options: LoginsServerOptions) {
    this.#listener = listener;
    this.#options = options;
    this.#http = createServer({ maxHeaderSize: MAX_HEADER_SIZE }, (request, response) => {
      void this.#respond(request, response);
    });
    this.#http.on('clientError', (_error, socket) => {
      options.onFault('no-http');
      if (!socket.writable) {
        socket.destroy();
        return;
      }
      socket.end('HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n', () => socket.destroy());
    });
    listener.serve((socket) => this.#connected(socket), options.onRefused);
  }

  /** Answers what was asked, then closes; when `signal` aborts, it closes at once. */
  async stop(signal: AbortSignal): Promise<void> {
    this.#stopping = true;
    await this.#listener.close();
    const sockets = [...this.#listener.connections];
    const closed = sockets.map((socket) => new Promise((resolve) => socket.once('close', resolve)));
    const cut = (): void => {
      for (const socket of sockets) socket.destroy();
    };
    for (const socket of sockets) if (!this.#busy.has(socket)) socket.destroy();
    signal.addEventListener('abort', cut, { once: true });
    if (signal.aborted) cut();
    await Promise.all(closed);
    signal.removeEventListener('abort', cut);
  }

  #connected(socket: Socket): void {
    this.#options.onConnection(1);
    this.#arm(socket, IDLE_TIMEOUT_MS, null);
    socket.once('close', () => {
      clearTimeout(this.#timers.get(socket));
      this.#timers.delete(socket);
      this.#busy.delete(socket);
      this.#options.onConnection(-1);
    });
    this.#http.emit('connection', socket);
  }

  /** node:http watches its own timeouts only on sockets it listens on itself. */
  #arm(socket: Socket, ms: number, fault: LoginFault | null): void {
    clearTimeout(this.#timers.get(socket));
    if (socket.destroyed) return;
    const late = (): void => {
      if (fault !== null) this.#options.onFault(fault);
      socket.destroy();
    };
    this.#timers.set(socket, setTimeout(late, ms));
  }

  async #respond(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { socket } = request;
    this.#busy.set(socket, (this.#busy.get(socket) ?? 0) + 1);
    this.#arm(socket, REQUEST_TIMEOUT_MS, 'slow');
    response.once('close', () => this.#answered(socket));
    let answer: HttpAnswer;
    try {
      const given = await this.#answer(request);
      if (given === null) return;
      answer = given;
    } catch (error) {
      this.#options.onFault('internal', error);
      answer = { status: 500, body: '{"error":"internal error"}' };
    }
    if (socket.destroyed) return;
    // Who was refused, or sent more than is read, starts anew.
    const close = this.#stopping || answer.status === 401 || answer.status === 413;
    response.writeHead(answer.status, {
      'Content-Type': 'application/json',
      'Content-Length': Buffer.byteLength(answer.body),
      ...(answer.status === 405 ? { Allow: 'POST' } : {}),
      ...(close ? { Connection: 'close' } : {}),
    });
    response.end(answer.body, () => {
      if (close) socket.destroySoon();
    });
  }

  #answered(socket: Socket): void {
    const left = (this.#busy.get(socket) ?? 1) - 1;
    if (left > 0) {
      this.#busy.set(socket, left);
      return;
    }
    this.#busy.delete(socket);
    if (this.#stopping) socket.destroySoon();
    this.#arm(socket, IDLE_TIMEOUT_MS, null);
  }

  /** null: nobody is there any more. */
  async #answer(request: IncomingMessage): Promise<HttpAnswer | null> {
    const body = await readBody(request);
    switch (body.kind) {
      case 'cut-off':
        return this.#fault('cut-off', null);
      case 'too-large':
        return this.#fault('too-large', wrong(413, `more than ${BODY_LIMIT} octets`));
      case 'whole':
        break;
    }
    const target = targetOf(request.url ?? '');
    if (target === null) return this.#fault('not-found', wrong(404, `expected ${LOGINS_PATH}?command=…`));
    if (request.method !== 'POST') return this.#fault('method', wrong(405, 'expected POST'));
    if (!this.#isKnown(request))
      return this.#fault('no-key', wrong(401, 'expected the X-API-Key of this server'));
    if (target.command === null)
      return this.#fault('malformed', wrong(400, 'expected command=allow or command=report'));
    const read = parseLoginRequest(target.command, body.octets);
    if (read === null)
      return this.#fault('malformed', wrong(400, 'expected the attributes of a login as JSON'));
    return { status: 200, body: JSON.stringify(await this.#options.answer(read)) };
  }

  #fault<A extends HttpAnswer | null>(fault: LoginFault, answer: A): A {
    this.#options.onFault(fault);
    return answer;
  }

  #isKnown(request: IncomingMessage): boolean {
    const wanted = this.#options.apiKey();
    if (wanted === null) return true;
    const given = request.headers[KEY_HEADER];
    return typeof given === 'string' && timingSafeEqual(digest(given), digest(wanted));
  }
}

/** Of equal length whatever the text was, so that the time of the comparison tells nothing, its length included. */
function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}

function wrong(status: Exclude<HttpAnswer['status'], 200>, error: string): HttpAnswer {
  return { status, body: JSON.stringify({ error }) };
}

/** null: another path. `command` is null when it is none of ours, or there are two. */
function targetOf(url: string): { readonly command: LoginCommand | null } | null {
  const mark = url.indexOf('?');
  const [path, query] = mark === -1 ? [url, ''] : [url.slice(0, mark), url.slice(mark + 1)];
  if (path !== LOGINS_PATH) return null;
  const [word, ...rest] = new URLSearchParams(query).getAll('command');
  const command = LOGIN_COMMANDS.find((known) => known === word) ?? null;
  return { command: rest.length === 0 ? command : null };
}

type Body =
  | { readonly kind: 'whole'; readonly octets: Buffer }
  | { readonly kind: 'too-large' }
  | { readonly kind: 'cut-off' };

/** At most BODY_LIMIT octets are kept, whatever is announced or sent. */
function readBody(request: IncomingMessage): Promise<Body> {
  return new Promise((resolve) => {
    const chunks: Buffer[] = [];
    let size = 0;
    request.on('data', (chunk: Buffer) => {
      size += chunk.length;
      if (size <= BODY_LIMIT) chunks.push(chunk);
      else resolve({ kind: 'too-large' });
    });
    request.once('end', () => resolve({ kind: 'whole', octets: Buffer.concat(chunks) }));
    request.once('error', () => resolve({ kind: 'cut-off' }));
    request.once('close', () => resolve({ kind: 'cut-off' }));
  });
}
