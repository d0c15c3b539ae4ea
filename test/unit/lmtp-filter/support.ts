import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { pino } from 'pino';
import { Registry } from 'prom-client';
import { z } from 'zod';

import { messageCheck, type CheckDefinition, type MessageFacts } from '../../../src/checks/check.ts';
import type { Config } from '../../../src/config/config.ts';
import { loadConfig } from '../../../src/config/load.ts';
import { isBackscatter } from '../../../src/lmtp-filter/backscatter.ts';
import { lmtpFilter, type LmtpFilterTools } from '../../../src/lmtp-filter/daemon.ts';
import type { Directory } from '../../../src/ports/directory.ts';
import type { Decision, KeptFacts, Store, TraceKeys } from '../../../src/ports/store.ts';
import type { SpamScan } from '../../../src/mail/spam-scan.ts';
import type { Daemon } from '../../../src/runtime/daemon.ts';
import { openListener, type Listener } from '../../../src/runtime/listener.ts';
import type { Finding } from '../../../src/verdict/finding.ts';
import { checkTools } from '../../support/checks.ts';
import { NO_QUARANTINE } from '../../support/no-quarantine.ts';
import { FakeDovecot } from '../../support/players/fake-dovecot.ts';
import { LmtpTalk } from '../../support/players/lmtp-talk.ts';

export const HOST = 'mx.olimpus.example';

/** A message as Postfix sends it, with Postfix's own Received on top. */
export function letter(
  changes: { readonly top?: string; readonly fields?: string; readonly body?: string } = {},
): string {
  return (
    `${changes.top ?? ''}Received: from odin.valhalla.local (odin.valhalla.local [192.0.2.20])\r\n` +
    '\tby delphos.olimpus.local (Postfix) with ESMTP id 8180B24C465\r\n' +
    '\tfor <zeus@olimpus.local>; Sat, 21 Nov 2026 08:13:00 +0000 (UTC)\r\n' +
    `From: thor@valhalla.local\r\nSubject: one\r\n${changes.fields ?? ''}\r\n${changes.body ?? 'Hello from the lab.\r\n'}`
  );
}

export interface StubCheck {
  readonly definition: CheckDefinition;
  readonly asked: MessageFacts[];
  run: (facts: MessageFacts, signal: AbortSignal) => Promise<readonly Finding[]>;
}

/** A check of the message by that name, which finds what the test says. */
export function stubCheck(
  name: string,
  codes: readonly string[],
  findings: readonly Finding[] = [],
): StubCheck {
  const asked: MessageFacts[] = [];
  const stub: StubCheck = {
    asked,
    run: () => Promise.resolve(findings),
    definition: messageCheck({
      name,
      stage: 'message',
      summary: `${name} for tests.`,
      directions: ['in'],
      needs: [],
      codes: Object.fromEntries(codes.map((code) => [code, { meaning: code, action: 'ignore' }])),
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

export const SCAN: SpamScan = { score: 7, required: 5, rules: ['BAYES_99'], fields: [] };

export function spamStub(score: number | null = null): StubCheck {
  const findings: Finding[] =
    score === null ? [] : [{ code: 'spam.scored', detail: 'stub', score, scan: { ...SCAN, score } }];
  return stubCheck('spam', ['spam.scored', 'spam.too-large'], findings);
}

async function configOf(toml: string, checks: readonly StubCheck[]): Promise<Config> {
  const folder = await mkdtemp(join(tmpdir(), 'lmtp-test-'));
  try {
    const path = join(folder, 'postern.toml');
    await writeFile(path, toml);
    const result = await loadConfig(
      path,
      checks.map(({ definition }) => definition),
    );
    if (!result.ok) throw new Error(JSON.stringify(result.problems));
    // The state folder must outlive this function, and spool files have no names.
    return {
      ...result.config,
      file: { ...result.config.file, state: { ...result.config.file.state, folder: tmpdir() } },
    };
  } finally {
    await rm(folder, { recursive: true });
  }
}

function unused(): Promise<never> {
  return Promise.reject(new Error('lmtp-filter has no business with this'));
}

export interface TestStore extends Store {
  readonly decisions: Decision[];
  readonly joined: TraceKeys[];
  /** By trace and queue id. */
  readonly facts: Map<string, KeptFacts>;
  joinTrace: Store['joinTrace'];
  keptFacts: Store['keptFacts'];
}

function testStore(): TestStore {
  const decisions: Decision[] = [];
  const joined: TraceKeys[] = [];
  const facts = new Map<string, KeptFacts>();
  const store: TestStore = {
    decisions,
    joined,
    facts,
    openTrace: unused,
    joinTrace(keys, fresh) {
      joined.push(keys);
      return Promise.resolve(fresh);
    },
    keepFacts: () => void unused(),
    keptFacts: (trace, queueId) => Promise.resolve(facts.get(`${trace} ${queueId}`) ?? null),
    record: (decision) => void decisions.push(decision),
    flush: () => Promise.resolve(),
    trim: () => Promise.resolve({ octets: null, decisions: 0 }),
    history: ({ trace, queueId, recipient, backscatter }) =>
      Promise.resolve(
        decisions
          .filter(
            (decision) =>
              (trace === undefined || decision.trace === trace) &&
              (queueId === undefined || decision.queueId === queueId) &&
              (recipient === undefined || decision.recipients.includes(recipient)) &&
              (backscatter === undefined || isBackscatter(decision.reply)),
          )
          .toReversed(),
      ),
    label: unused,
    expire: unused,
  };
  return store;
}

const LOG_LINE = z.looseObject({ level: z.string(), msg: z.string() });
export type LogLine = z.infer<typeof LOG_LINE>;

export interface TestTools extends LmtpFilterTools {
  readonly store: TestStore;
  readonly lines: LogLine[];
}

function testTools(directory?: Directory): TestTools {
  const lines: LogLine[] = [];
  const checks = checkTools({ hostname: HOST, ...(directory === undefined ? {} : { directory }) });
  const log = pino(
    { level: 'debug', formatters: { level: (label) => ({ level: label }) } },
    { write: (line: string) => void lines.push(LOG_LINE.parse(JSON.parse(line))) },
  );
  return { log, registry: new Registry(), store: testStore(), checks, quarantine: NO_QUARANTINE, lines };
}

export interface Running extends AsyncDisposable {
  readonly daemon: Daemon<Config>;
  readonly listener: Listener;
  readonly target: { readonly port: number };
  readonly tools: TestTools;
  readonly dovecot: FakeDovecot;
  readonly config: Config;
  /** A client that has said LHLO. */
  client(): Promise<LmtpTalk>;
}

export interface RunOptions {
  /** Keys of the lmtp-filter table. */
  readonly keys?: string;
  /** Tables behind it. */
  readonly toml?: string;
  readonly checks?: readonly StubCheck[];
  readonly dovecot?: FakeDovecot;
  /** Further ones. */
  readonly dovecots?: readonly FakeDovecot[];
  /** Asked only where there are several Dovecots. */
  readonly directory?: Directory;
  readonly stateFolder?: string;
}

/** The daemon on a port of its own, with Dovecot behind it. */
export async function startFilter(options: RunOptions = {}): Promise<Running> {
  const dovecot = options.dovecot ?? (await FakeDovecot.open());
  const checks = options.checks ?? [];
  const upstream = [dovecot, ...(options.dovecots ?? [])].map(({ port }) => `127.0.0.1:${port}`);
  const loaded = await configOf(
    `[site]\nhostname = "${HOST}"\n[lmtp-filter]\nupstream = ${JSON.stringify(upstream)}\n${options.keys ?? ''}\n${options.toml ?? ''}`,
    checks,
  );
  const state = { ...loaded.file.state, folder: options.stateFolder ?? loaded.file.state.folder };
  const config = { ...loaded, file: { ...loaded.file, state } };
  const tools = testTools(options.directory);
  const listener = await openListener({
    address: { kind: 'tcp', host: '127.0.0.1', port: 0 },
    mode: 0o600,
    group: null,
    maxConnections: config.file['lmtp-filter'].max_connections,
  });
  const daemon = lmtpFilter(listener, config, tools);
  const target = { port: listener.port ?? 0 };
  return {
    daemon,
    listener,
    target,
    tools,
    dovecot,
    config,
    client: () => LmtpTalk.introduced(target),
    async [Symbol.asyncDispose]() {
      await listener[Symbol.asyncDispose]();
      await dovecot[Symbol.asyncDispose]();
    },
  };
}
