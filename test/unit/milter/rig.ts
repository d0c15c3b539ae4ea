import type { Quarantine } from '../../../src/ports/quarantine.ts';
import { milterMetrics } from '../../../src/milter/metrics.ts';
import { CONTINUE } from '../../../src/milter/responses.ts';
import { Session } from '../../../src/milter/session.ts';
import { CommandDecoder } from '../../../src/milter/wire.ts';
import { metric } from '../../support/metric.ts';
import { NO_QUARANTINE } from '../../support/no-quarantine.ts';
import {
  configOf,
  CONNECT,
  DATA,
  EOH,
  HELO,
  MAIL,
  OFFER_V6,
  packet,
  RCPT,
  stubChecks,
  testTools,
  type StubChecks,
  type TestTools,
} from './support.ts';

export interface Rig {
  readonly session: Session;
  readonly tools: TestTools;
  readonly checks: StubChecks;
  /** What is answered to the last of these; all answers before it are dropped. */
  readonly say: (...packets: readonly Buffer[]) => Promise<string | null>;
  /** Messages counted with that end. */
  readonly counted: (verdict: string, direction?: 'in' | 'out') => Promise<number | undefined>;
}

/** A session without a socket. */
export async function rig(toml = '', quarantine: Quarantine = NO_QUARANTINE): Promise<Rig> {
  const checks = stubChecks();
  const tools = testTools();
  const config = await configOf(toml, checks.definitions);
  const { log, store, registry, keys } = tools;
  const session = new Session(config, {
    log,
    store,
    keys,
    quarantine,
    checks: tools.checks,
    metrics: milterMetrics(registry),
  });
  const decoder = new CommandDecoder();
  return {
    session,
    tools,
    checks,
    say: async (...packets) => {
      let answer: Buffer | null = null;
      decoder.push(Buffer.concat(packets));
      for (let command = decoder.next(); command !== null; command = decoder.next()) {
        if (command.kind === 'quit') throw new Error('QUIT is the connection its business');
        answer = await session.handle(command);
      }
      return answer === null ? null : answer.toString('latin1');
    },
    counted: (verdict, direction = 'in') =>
      metric(tools.registry, 'postern_milter_messages_total', { direction, verdict }),
  };
}

export const GO = CONTINUE.toString('latin1');
export const BEGIN = [OFFER_V6, CONNECT, HELO];
export const HEADER = packet('L', 'Subject\0 hi\0');
export const BODY = packet('B', 'Hello\r\n');
export const MESSAGE = [MAIL, RCPT, DATA, HEADER, EOH, BODY];
