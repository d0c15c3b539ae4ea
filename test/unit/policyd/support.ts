import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';

import { pino } from 'pino';
import { Registry } from 'prom-client';
import { z } from 'zod';

import { mailCheck, type CheckDefinition, type MailFacts } from '../../../src/checks/check.ts';
import type { Config } from '../../../src/config/config.ts';
import { loadConfig } from '../../../src/config/load.ts';
import { policyd, type PolicydTools } from '../../../src/policyd/daemon.ts';
import type { Attributes } from '../../../src/policyd/wire.ts';
import { RequestDecoder } from '../../../src/policyd/wire.ts';
import type { Decision, Store, TraceKeys } from '../../../src/ports/store.ts';
import type { Daemon } from '../../../src/runtime/daemon.ts';
import { openListener, type Listener } from '../../../src/runtime/listener.ts';
import type { Finding } from '../../../src/verdict/finding.ts';
import { checkTools } from '../../support/checks.ts';
import type { Target } from '../../support/players/dial.ts';
import { policyRequest, type PolicyAttributes } from '../../support/players/policy-client.ts';

/** A request at RCPT as Postfix sends it, with what a test changes. */
export function rcpt(changes: PolicyAttributes = {}): PolicyAttributes {
  return {
    protocol_state: 'RCPT',
    client_address: '192.0.2.20',
    client_name: 'odin.valhalla.example',
    client_port: '40235',
    reverse_client_name: 'odin.valhalla.example',
    helo_name: 'odin.valhalla.example',
    sender: 'thor@valhalla.example',
    recipient: 'zeus@olimpus.example',
    instance: '74fc.6b01513a.6a32c.0',
    ...changes,
  };
}

/** The request as the decoder gives it. */
export function decoded(changes: PolicyAttributes): Attributes {
  const [request] = new RequestDecoder().push(policyRequest(changes)).requests;
  if (request === undefined) throw new Error('the request was not complete');
  return request;
}

export type Word = 'pass' | 'fail' | 'softfail' | 'temperror';

/** What the real check says, without DNS. */
export function spfFinding(word: Word, { sender, client }: MailFacts): Finding {
  const from = sender.kind === 'null' ? `postmaster@${client.helo}` : sender.address.raw;
  return {
    code: `spf.${word}`,
    detail: `${from} from ${client.address}: ${word}`,
    auth: { method: 'spf', result: word, properties: [['smtp.mailfrom', from]] },
  };
}

export interface StubCheck {
  readonly definition: CheckDefinition;
  /** Facts it was asked about, in order. */
  readonly asked: MailFacts[];
  /** What it finds next; replaced by tests. */
  run: (facts: MailFacts, signal: AbortSignal) => Promise<readonly Finding[]>;
}

/** A check of the name `spf` that finds what the test says; `pass` at first. */
export function stubSpf(): StubCheck {
  const asked: MailFacts[] = [];
  const stub: StubCheck = {
    asked,
    run: (facts) => Promise.resolve([spfFinding('pass', facts)]),
    definition: mailCheck({
      name: 'spf',
      stage: 'mail',
      summary: 'A stand-in.',
      directions: ['in'],
      needs: [],
      codes: {
        'spf.pass': { meaning: 'pass', action: 'ignore' },
        'spf.softfail': { meaning: 'softfail', action: 'ignore' },
        'spf.fail': { meaning: 'fail', action: 'reject' },
        'spf.temperror': { meaning: 'temperror', action: 'defer' },
      },
      unavailable: 'defer',
      deadline: '5s',
      options: {},
      run: ({ facts, signal }) => {
        asked.push(facts);
        return stub.run(facts, signal);
      },
    }),
  };
  return stub;
}

/** `toml` below a site whose host name is mx.olimpus.example. */
export function configOf(toml: string, stub: StubCheck): Promise<Config> {
  return configFor(toml, [stub.definition]);
}

/** As `configOf`, with any checks. */
export async function configFor(toml: string, checks: readonly CheckDefinition[]): Promise<Config> {
  const folder = await mkdtemp(join(tmpdir(), 'policyd-test-'));
  try {
    const path = join(folder, 'postern.toml');
    await writeFile(path, `[site]\nhostname = "mx.olimpus.example"\n${toml}`);
    const result = await loadConfig(path, checks);
    if (!result.ok) throw new Error(JSON.stringify(result.problems));
    return result.config;
  } finally {
    await rm(folder, { recursive: true });
  }
}

function unasked(): Promise<never> {
  return Promise.reject(new Error('policyd has no business with this'));
}

export interface TestStore extends Store {
  readonly decisions: Decision[];
  readonly opened: TraceKeys[];
  openTrace: Store['openTrace'];
}

function testStore(): TestStore {
  const decisions: Decision[] = [];
  const opened: TraceKeys[] = [];
  return {
    decisions,
    opened,
    openTrace(keys, fresh) {
      opened.push(keys);
      return Promise.resolve(fresh);
    },
    joinTrace: unasked,
    keepFacts: () => void unasked(),
    keptFacts: unasked,
    record: (decision) => void decisions.push(decision),
    flush: () => Promise.resolve(),
    trim: () => Promise.resolve({ octets: null, decisions: 0 }),
    history: unasked,
    label: unasked,
    expire: unasked,
  };
}

const LOG_LINE = z.looseObject({ level: z.string(), msg: z.string() });
export type LogLine = z.infer<typeof LOG_LINE>;

export interface TestTools extends PolicydTools {
  readonly store: TestStore;
  readonly lines: LogLine[];
  readonly time: { ms: number };
}

export function testTools(): TestTools {
  const lines: LogLine[] = [];
  // Far from 0, which lru-cache takes for "no age".
  const time = { ms: 1_000_000 };
  const checks = checkTools({ clock: { now: () => time.ms, elapsed: () => time.ms } });
  const log = pino(
    { level: 'debug', formatters: { level: (label) => ({ level: label }) } },
    { write: (line: string) => void lines.push(LOG_LINE.parse(JSON.parse(line))) },
  );
  return { log, registry: new Registry(), store: testStore(), checks, lines, time };
}

export interface Running extends AsyncDisposable {
  readonly daemon: Daemon<Config>;
  readonly listener: Listener;
  readonly target: Target;
  readonly tools: TestTools;
  readonly spf: StubCheck;
}

/** The daemon on a port of its own, or on a unix socket. */
export async function startPolicyd(toml = '', path: string | null = null): Promise<Running> {
  const spf = stubSpf();
  const tools = testTools();
  const config = await configOf(toml, spf);
  const listener = await openListener({
    address: path === null ? { kind: 'tcp', host: '127.0.0.1', port: 0 } : { kind: 'unix', path },
    mode: 0o600,
    group: null,
    maxConnections: config.file.policyd.max_connections,
  });
  const daemon = policyd(listener, config, tools);
  return {
    daemon,
    listener,
    target: path === null ? { port: listener.port ?? 0 } : { path },
    tools,
    spf,
    [Symbol.asyncDispose]: () => listener[Symbol.asyncDispose](),
  };
}

/** Waits for the event loop to bring something about; the time limit of the test guards it. */
export async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await setImmediate();
}

/** From now on the check waits until it is let go. */
export function waitingCheck({ spf }: Running): { readonly asked: Promise<void>; readonly open: () => void } {
  const asked = Promise.withResolvers<void>();
  const opened = Promise.withResolvers<void>();
  spf.run = async (facts) => {
    asked.resolve();
    await opened.promise;
    return [spfFinding('pass', facts)];
  };
  return { asked: asked.promise, open: opened.resolve };
}
