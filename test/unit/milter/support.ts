import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import type { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { pino } from 'pino';
import { Registry } from 'prom-client';
import { z } from 'zod';

import { mailCheck, messageCheck, type CheckDefinition } from '../../../src/checks/check.ts';
import type { Facts } from '../../../src/checks/check.ts';
import type { Config } from '../../../src/config/config.ts';
import { loadConfig } from '../../../src/config/load.ts';
import { milter, type MilterTools } from '../../../src/milter/daemon.ts';
import type { SigningKeys } from '../../../src/ports/signing-keys.ts';
import type { Decision, KeptFacts, Store, TraceId, TraceKeys } from '../../../src/ports/store.ts';
import type { Daemon } from '../../../src/runtime/daemon.ts';
import { openListener, type Listener } from '../../../src/runtime/listener.ts';
import type { Finding } from '../../../src/verdict/finding.ts';
import { checkTools } from '../../support/checks.ts';
import { NO_QUARANTINE } from '../../support/no-quarantine.ts';
import { MORNING } from '../../support/decisions.ts';
import { heldKeys, keysOf } from '../../support/signing-keys.ts';
import { dial, Inbox, type Target } from '../../support/players/dial.ts';
import type { MilterMail } from '../../support/players/milter-client.ts';

export const TRACE = 'aaaabbbbccccdddd';

/** An ordinary message from outside, with what a test changes. */
export function mail(changes: Partial<MilterMail> = {}): MilterMail {
  return {
    address: '192.0.2.20',
    port: 40_327,
    host: 'odin.valhalla.example',
    helo: 'odin.valhalla.example',
    queueId: '4gX1Yz0abcz1',
    from: '<thor@valhalla.example>',
    to: ['<zeus@olimpus.example>'],
    headers: [
      ['From', ' Thor <thor@valhalla.example>'],
      ['To', ' zeus@olimpus.example'],
      ['Subject', ' greetings'],
      ['Message-ID', ' <1@valhalla.example>'],
    ],
    body: Buffer.from('Hello\r\n'),
    ...changes,
  };
}

type Run<S extends keyof Facts> = (facts: Facts[S], signal: AbortSignal) => Promise<readonly Finding[]>;

/** Two checks that find what the test says: `spf` at MAIL, `spam` at the end; both for mail from outside. */
export interface StubChecks {
  readonly definitions: readonly CheckDefinition[];
  readonly asked: { readonly mail: Facts['mail'][]; readonly message: Facts['message'][] };
  mail: Run<'mail'>;
  message: Run<'message'>;
}

export function stubChecks(): StubChecks {
  const asked: StubChecks['asked'] = { mail: [], message: [] };
  const stub: StubChecks = {
    asked,
    mail: () => Promise.resolve([]),
    message: () => Promise.resolve([]),
    definitions: [
      mailCheck({
        name: 'spf',
        stage: 'mail',
        summary: 'A stand-in.',
        directions: ['in'],
        needs: [],
        codes: {
          'spf.pass': { meaning: 'pass', action: 'ignore' },
          'spf.fail': { meaning: 'fail', action: 'ignore' },
        },
        unavailable: 'defer',
        deadline: '5s',
        options: {},
        run: ({ facts, signal }) => {
          asked.mail.push(facts);
          return stub.mail(facts, signal);
        },
      }),
      messageCheck({
        name: 'spam',
        stage: 'message',
        summary: 'A stand-in.',
        directions: ['in'],
        needs: [],
        codes: {
          'spam.scored': { meaning: 'scored', action: 'ignore' },
          'spam.virus': { meaning: 'virus', action: 'reject' },
          'spam.odd': { meaning: 'odd', action: 'quarantine' },
          'spam.noise': { meaning: 'noise', action: 'discard' },
        },
        unavailable: 'defer',
        deadline: '60s',
        options: {},
        run: ({ facts, signal }) => {
          asked.message.push(facts);
          return stub.message(facts, signal);
        },
      }),
    ],
  };
  return stub;
}

/** `toml` below a site whose host name is mx.olimpus.example; `files` stand beside it. */
export async function configOf(
  toml: string,
  checks: readonly CheckDefinition[],
  files: Readonly<Record<string, string>> = {},
): Promise<Config> {
  return (await loadedSite(toml, checks, files)).config;
}

async function loadedSite(
  toml: string,
  checks: readonly CheckDefinition[],
  files: Readonly<Record<string, string>>,
): Promise<{ readonly config: Config; readonly keys: SigningKeys }> {
  const folder = await mkdtemp(join(tmpdir(), 'milter-test-'));
  try {
    const path = join(folder, 'postern.toml');
    const site = `site.hostname = "mx.olimpus.example"\nstate.folder = ${JSON.stringify(tmpdir())}\n`;
    await writeFile(path, `${site}${toml}`);
    for (const [name, text] of Object.entries(files))
      await writeFile(join(folder, name), text, { mode: 0o600 });
    const result = await loadConfig(path, checks);
    if (!result.ok) throw new Error(JSON.stringify(result.problems));
    return { config: result.config, keys: await keysOf(result.config) };
  } finally {
    await rm(folder, { recursive: true });
  }
}

export interface TestStore extends Store {
  readonly decisions: Decision[];
  readonly joined: TraceKeys[];
  readonly kept: { readonly trace: TraceId; readonly queueId: string; readonly facts: KeptFacts }[];
  joinTrace: Store['joinTrace'];
  keepFacts: Store['keepFacts'];
  /** Called with each decision as it comes. */
  onDecision: (decision: Decision) => void;
}

function notAsked(): Promise<never> {
  return Promise.reject(new Error('the milter has no business with this'));
}

function testStore(): TestStore {
  const store: TestStore = {
    decisions: [],
    joined: [],
    kept: [],
    onDecision: () => {},
    joinTrace(keys) {
      store.joined.push(keys);
      return Promise.resolve(TRACE);
    },
    keepFacts(trace, queueId, facts) {
      store.kept.push({ trace, queueId, facts });
    },
    record(decision) {
      store.decisions.push(decision);
      store.onDecision(decision);
    },
    openTrace: notAsked,
    keptFacts: notAsked,
    flush: () => Promise.resolve(),
    trim: () => Promise.resolve({ octets: null, decisions: 0 }),
    history: notAsked,
    label: notAsked,
    expire: notAsked,
  };
  return store;
}

const LOG_LINE = z.looseObject({ level: z.string(), msg: z.string() });
type LogLine = z.infer<typeof LOG_LINE>;

export interface TestTools extends MilterTools {
  readonly store: TestStore;
  readonly lines: LogLine[];
}

export function testTools(): TestTools {
  const lines: LogLine[] = [];
  const checks = checkTools({ clock: { now: () => MORNING, elapsed: () => performance.now() } });
  const log = pino(
    { level: 'debug', formatters: { level: (label) => ({ level: label }) } },
    { write: (line: string) => void lines.push(LOG_LINE.parse(JSON.parse(line))) },
  );
  return {
    log,
    registry: new Registry(),
    store: testStore(),
    checks,
    keys: heldKeys(),
    quarantine: NO_QUARANTINE,
    lines,
  };
}

export interface Running extends AsyncDisposable {
  readonly daemon: Daemon<Config>;
  readonly listener: Listener;
  readonly target: Target;
  readonly tools: TestTools;
  readonly checks: StubChecks;
}

export interface StartOptions {
  readonly toml?: string;
  readonly files?: Readonly<Record<string, string>>;
  readonly checks?: StubChecks;
  readonly tools?: TestTools;
  /** Folder of spool files. */
  readonly spool?: string;
  /** A unix socket at this path in place of a port. */
  readonly path?: string;
}

/** The daemon on a port of its own. */
export async function startMilter(options: StartOptions = {}): Promise<Running> {
  const { toml = '', files = {}, checks = stubChecks(), tools = testTools() } = options;
  const { config: loaded, keys } = await loadedSite(toml, checks.definitions, files);
  const folder = options.spool ?? loaded.file.state.folder;
  const config = { ...loaded, file: { ...loaded.file, state: { ...loaded.file.state, folder } } };
  const listener = await openListener({
    address:
      options.path === undefined
        ? { kind: 'tcp', host: '127.0.0.1', port: 0 }
        : { kind: 'unix', path: options.path },
    mode: 0o600,
    group: null,
    maxConnections: config.file.milter.max_connections,
  });
  const daemon = milter(listener, config, { ...tools, keys });
  return {
    daemon,
    listener,
    target: options.path === undefined ? { port: listener.port ?? 0 } : { path: options.path },
    tools,
    checks,
    [Symbol.asyncDispose]: () => listener[Symbol.asyncDispose](),
  };
}

/** `D` and the like: length, command, payload. Strings are latin1. */
export function packet(code: string, ...payload: readonly (string | Uint8Array)[]): Buffer {
  const data = Buffer.concat(
    payload.map((piece) => (typeof piece === 'string' ? Buffer.from(piece, 'latin1') : piece)),
  );
  const head = Buffer.alloc(5);
  head.writeUInt32BE(1 + data.length);
  head.write(code, 4, 'latin1');
  return Buffer.concat([head, data]);
}

export function words(...values: readonly number[]): Buffer {
  const bytes = Buffer.alloc(4 * values.length);
  for (const [index, value] of values.entries()) bytes.writeUInt32BE(value, 4 * index);
  return bytes;
}

/** What Postfix offers with milter_protocol = 6 and 2. */
export const OFFER_V6 = packet('O', words(6, 0x1ff, 0x1fffff));
export const OFFER_V2 = packet('O', words(2, 0x1ff, 0x7f));

export const CONNECT = packet('C', 'odin.valhalla.example\0', '4', Buffer.from([0x9d, 0x87]), '192.0.2.20\0');
export const HELO = packet('H', 'odin.valhalla.example\0');
export const MAIL = packet('M', '<thor@valhalla.example>\0', 'SIZE=1234\0');
export const RCPT = packet('R', '<zeus@olimpus.example>\0');
export const DATA = packet('T');
export const EOH = packet('N');
export const EOM = packet('E');
export const ABORT = packet('A');
export const QUIT = packet('Q');

/** A socket that sends bytes as they are and reads packets. */
export class RawPeer implements Disposable {
  readonly socket: Socket;
  readonly #inbox: Inbox;

  private constructor(socket: Socket) {
    this.socket = socket;
    this.#inbox = new Inbox(socket);
  }

  static async open(target: Target): Promise<RawPeer> {
    return new RawPeer(await dial(target));
  }

  send(...packets: readonly Uint8Array[]): void {
    this.socket.write(Buffer.concat(packets));
  }

  /** The next packet: its command and what follows, as latin1; null when the connection was closed. */
  next(): Promise<string | null> {
    return this.#inbox.next((held) => {
      if (held.length < 5) return null;
      const used = 4 + held.readUInt32BE(0);
      return held.length < used ? null : { value: held.toString('latin1', 4, used), used };
    });
  }

  [Symbol.dispose](): void {
    this.socket.destroy();
  }
}

/** Our end of the one open connection. */
export function onlyConnection({ listener }: Running): Socket {
  const [socket] = listener.connections;
  if (socket === undefined) throw new Error('no connection');
  return socket;
}

/** A promise, and the function that settles it; for a check that waits until the test lets it go. */
export function gate(): { readonly opened: Promise<void>; readonly open: () => void } {
  const { promise, resolve } = Promise.withResolvers<void>();
  return { opened: promise, open: resolve };
}
