import { startRedis } from '../neighbours/redis.ts';
import { startSpamd } from '../neighbours/spamd.ts';
import { startStreamTap, type StreamTap } from '../players/stream-tap.ts';
import { askedVictim, type Victim } from './victims.ts';

/**
 * Who is killed: the two ends of the LMTP dialogue, spamd (where mail that it could not scan waits, and where it goes on), Redis as the
 * store; the store as files, which is locked, out of room and moved away.
 */
export const STORMS = ['dialogue', 'spamd-defer', 'spamd-ignore', 'redis', 'files'] as const;

export type StormName = (typeof STORMS)[number];

/** A server that lmtp-filter asks in a storm. */
export interface Asked {
  /** null: lmtp-filter asks nobody that is killed. */
  readonly ask: Victim | null;
  readonly spamdPort: number | null;
  readonly config: string;
}

/** What looks names up, which a storm has no name server for. */
const NO_DNS = ['spf', 'dkim', 'arc', 'dmarc'].map((check) => `checks.${check}.enabled = false`);
/** Without rules, the longest part of a scan: what counts here is the dialogue. */
const RULES = ['body STORM /storm/', 'score STORM 1', 'use_bayes 0'];

/** @param cleanup ends what is started here */
export async function askedServer(name: StormName, cleanup: AsyncDisposableStack): Promise<Asked> {
  switch (name) {
    case 'dialogue':
    case 'files':
      return { ask: null, spamdPort: null, config: '' };
    case 'spamd-defer':
    case 'spamd-ignore': {
      const spamd = cleanup.use(await startSpamd({ rules: RULES, children: 4 }));
      const tap = cleanup.use(await startStreamTap(spamd.port));
      const config = [
        // Mail of this host would not be scanned.
        'site.own_networks = ["192.0.2.0/24"]',
        ...NO_DNS,
        `unavailable.spam = "${name === 'spamd-defer' ? 'defer' : 'ignore'}"`,
      ].join('\n');
      return { ask: askedServerVictim('spamd', tap, spamd), spamdPort: tap.port, config };
    }
    case 'redis': {
      const redis = cleanup.use(await startRedis());
      const tap = cleanup.use(await startStreamTap(redis.port));
      const config = `state.redis.address = "127.0.0.1:${tap.port}"`;
      return { ask: askedServerVictim('Redis', tap, redis), spamdPort: null, config };
    }
  }
}

function askedServerVictim(
  name: 'spamd' | 'Redis',
  tap: StreamTap,
  server: { kill(): Promise<void>; restart(): Promise<void> },
): Victim {
  const exchange = ['asking', 'asked', 'answered', 'told'] as const;
  return askedVictim(
    name,
    // Redis is connected to once.
    name === 'spamd' ? ['connect', ...exchange] : exchange,
    tap,
    () => server.kill(),
    () => server.restart(),
  );
}
