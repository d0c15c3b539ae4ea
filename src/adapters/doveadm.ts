import { Agent, request, type IncomingMessage } from 'node:http';

import { z } from 'zod';

import { NeighbourError } from '../ports/neighbour-error.ts';
import { Slots } from './slots.ts';

export interface DoveadmOptions {
  readonly address:
    | { readonly kind: 'tcp'; readonly host: string; readonly port: number }
    | { readonly kind: 'unix'; readonly path: string };
  /** doveadm_api_key. */
  readonly apiKey: string;
  /** The longest one answer may take. */
  readonly timeoutMs: number;
  /** Questions at once; each holds a process of Dovecot's. */
  readonly maxConcurrent: number;
}

/** One quota root of a user. Octets. */
export interface QuotaRoot {
  readonly name: string;
  readonly used: number;
  /** null: no limit. */
  readonly limit: number | null;
}

/** The longest answer. One root takes some 200 octets. */
export const ANSWER_LIMIT = 65_536;
/** Questions that may wait for each one under way. */
const WAITING_PER_QUESTION = 50;
/** Dovecot closes a connection that is idle for a minute (doveadm's client_idle_timeout, 60 s). */
const IDLE_MS = 30_000;

// Dovecot: doveadm.h. 67 is EX_NOUSER, 68 DOVEADM_EX_NOTFOUND (the user is on another host).
const NO_SUCH_USER = new Set([67, 68]);

const ERROR = z.tuple([
  z.literal('error'),
  z.looseObject({ type: z.string(), exitCode: z.number() }),
  z.string(),
]);
const COUNT = z.string().regex(/^\d{1,15}$/);
function answerOf<T extends z.ZodType>(content: T) {
  return z.tuple([z.union([ERROR, z.tuple([z.literal('doveadmResponse'), content, z.string()])])]);
}

const ENTRY = z.looseObject({
  root: z.string(),
  type: z.string(),
  value: COUNT,
  limit: z.union([z.literal('-'), COUNT]),
});
const QUOTA_ANSWER = answerOf(z.array(ENTRY));
const USER_ANSWER = answerOf(z.record(z.string(), z.record(z.string(), z.string())));

/** Comes back with the answer: one for each kind of question. */
const QUOTA_TAG = 'quota';
const USER_TAG = 'user';
const KIB = 1024;

/** Dovecot's doveadm over HTTP. */
export class Doveadm implements Disposable {
  readonly #options: DoveadmOptions;
  readonly #where: string;
  readonly #agent: Agent;
  readonly #slots: Slots;
  readonly #authorization: string;

  constructor(options: DoveadmOptions) {
    const { address, apiKey, maxConcurrent } = options;
    this.#options = options;
    this.#where = address.kind === 'unix' ? address.path : `${address.host}:${address.port}`;
    this.#agent = new Agent({ keepAlive: true, maxSockets: maxConcurrent, timeout: IDLE_MS });
    this.#slots = new Slots(maxConcurrent, maxConcurrent * WAITING_PER_QUESTION);
    this.#authorization = `X-Dovecot-API ${Buffer.from(apiKey).toString('base64')}`;
  }

  /**
   * The quota roots of a user; null: there is no such user here.
   *
   * @param user one character for each octet
   * @throws {NeighbourError}
   */
  async quota(user: string): Promise<readonly QuotaRoot[] | null> {
    const name = Buffer.from(user, 'latin1').toString('utf8');
    return await this.#asked(['quotaGet', { user: name }, QUOTA_TAG], rootsOf);
  }

  /**
   * The fields of the user database; null: there is no such user here.
   *
   * @param user one character for each octet
   * @throws {NeighbourError}
   */
  async user(user: string): Promise<ReadonlyMap<string, string> | null> {
    // To doveadm these make a pattern, which would find other users.
    if (/[*?]/.test(user)) return null;
    const name = Buffer.from(user, 'latin1').toString('utf8');
    return await this.#asked(['user', { userMask: [name] }, USER_TAG], (text) => fieldsOf(text, name));
  }

  [Symbol.dispose](): void {
    this.#agent.destroy();
  }

  async #asked<T>(question: readonly unknown[], read: (text: string) => T): Promise<T> {
    const body = JSON.stringify([question]);
    const deadline = AbortSignal.timeout(this.#options.timeoutMs);
    try {
      return read(await this.#slots.run(() => this.#ask(body, deadline), deadline));
    } catch (error) {
      throw new NeighbourError(`doveadm at ${this.#where}`, { cause: this.#reason(error, deadline) });
    }
  }

  async #ask(body: string, signal: AbortSignal): Promise<string> {
    try {
      return await this.#send(body, signal);
    } catch (error) {
      // Dovecot closed a connection that had been idle at the moment it was used again: it has seen nothing of the question.
      if (error instanceof StaleConnection) return await this.#send(body, signal);
      throw error;
    }
  }

  #send(body: string, signal: AbortSignal): Promise<string> {
    const { address } = this.#options;
    return new Promise((resolve, reject) => {
      const question = request({
        ...(address.kind === 'unix'
          ? { socketPath: address.path }
          : { host: address.host, port: address.port }),
        agent: this.#agent,
        method: 'POST',
        path: '/doveadm/v1',
        headers: {
          authorization: this.#authorization,
          'content-type': 'application/json',
          'content-length': Buffer.byteLength(body),
        },
        signal,
      });
      question.once('error', (error) => {
        const closed = 'code' in error && (error.code === 'ECONNRESET' || error.code === 'EPIPE');
        reject(question.reusedSocket && closed ? new StaleConnection() : error);
      });
      question.once('response', (response) => {
        textOf(response).then(resolve, reject);
      });
      question.end(body);
    });
  }

  #reason(error: unknown, deadline: AbortSignal): unknown {
    return deadline.aborted ? new Error(`no answer within ${this.#options.timeoutMs} ms`) : error;
  }
}

class StaleConnection extends Error {}

async function textOf(response: IncomingMessage): Promise<string> {
  const { statusCode = 0 } = response;
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of response) {
    if (!Buffer.isBuffer(chunk)) throw new NeighbourError('the answer has no octets');
    size += chunk.length;
    // Leaving the loop ends the connection.
    if (size > ANSWER_LIMIT) throw new NeighbourError(`the answer is longer than ${ANSWER_LIMIT} octets`);
    chunks.push(chunk);
  }
  // Dovecot 2.3 says 401 to a wrong key, its manual 403.
  if (statusCode === 401 || statusCode === 403)
    throw new NeighbourError(`it refuses our key (HTTP status ${statusCode}); see doveadm_api_key`);
  if (statusCode !== 200) throw new NeighbourError(`HTTP status ${statusCode}`);
  return Buffer.concat(chunks).toString('utf8');
}

function rootsOf(text: string): readonly QuotaRoot[] | null {
  const answer = QUOTA_ANSWER.safeParse(json(text));
  if (!answer.success) throw new NeighbourError('it answered nonsense');
  const [[kind, content, tag]] = answer.data;
  if (tag !== QUOTA_TAG) throw new NeighbourError('it answered another question');
  if (kind === 'error') return noUser(content);
  // Both are KiB, rounded up (quota.c quota_get_resource): what is used is never more than told here.
  return content
    .filter(({ type }) => type === 'STORAGE')
    .map(({ root, value, limit }) => ({
      name: root,
      used: Number(value) * KIB,
      limit: limit === '-' ? null : Number(limit) * KIB,
    }));
}

function fieldsOf(text: string, name: string): ReadonlyMap<string, string> | null {
  const answer = USER_ANSWER.safeParse(json(text));
  if (!answer.success) throw new NeighbourError('it answered nonsense');
  const [[kind, content, tag]] = answer.data;
  if (tag !== USER_TAG) throw new NeighbourError('it answered another question');
  if (kind === 'error') return noUser(content);
  const fields = content[name];
  if (fields === undefined) throw new NeighbourError('it answered about somebody else');
  return new Map(Object.entries(fields));
}

/** @throws {NeighbourError} when the error says something else */
function noUser({ type, exitCode }: { readonly type: string; readonly exitCode: number }): null {
  if (NO_SUCH_USER.has(exitCode)) return null;
  throw new NeighbourError(
    exitCode === 75 ? 'it failed for now (exit code 75)' : `${type}, exit code ${exitCode}`,
  );
}

function json(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
