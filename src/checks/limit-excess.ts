import { printable } from '../mail/reply.ts';
import type { Hit, HitResult } from '../ports/limits.ts';
import type { Notice } from '../ports/notifier.ts';
import type { Finding } from '../verdict/finding.ts';
import type { CheckTools, MailFacts } from './check.ts';
import { limitCode, periodText, type Limit } from './limit-options.ts';
import { shellWord } from './shell-word.ts';

/** A limit that has no room. */
interface Excess {
  readonly limit: Limit;
  readonly hit: Hit;
  readonly result: HitResult;
}

type Counted = Pick<Excess, 'limit' | 'hit'>;

interface Counting {
  readonly findings: readonly Finding[];
  /** Hits that only look on and were counted all the same, though an enforced limit has no room; null: all enforced ones have room. */
  readonly onlookers: readonly Hit[] | null;
}

/** Counts, and tells of what has no room. @throws {NeighbourError} */
export async function countHits(
  counted: readonly Counted[],
  facts: MailFacts,
  tools: CheckTools,
): Promise<Counting> {
  const results = await tools.state.hit(counted.map(({ hit }) => hit));
  const findings: Finding[] = [];
  let refused = false;
  for (const [index, { limit, hit }] of counted.entries()) {
    const result = results[index];
    if (result === undefined || result.within) continue;
    refused ||= hit.enforced;
    findings.push(excessFinding({ limit, hit, result }));
    notifyExcess({ limit, hit, result }, facts, tools);
  }
  return {
    findings,
    onlookers: refused ? counted.flatMap(({ hit }) => (hit.enforced ? [] : [hit])) : null,
  };
}

function excessFinding({ limit, hit, result }: Excess): Finding {
  const wait = result.retryMs > 0 ? `; room again in ${waitText(result.retryMs)}` : '';
  return { code: limitCode(limit), detail: `${usageText(limit, hit, result)}${wait}` };
}

/** Tells somebody at the first excess. What is not acted on is not worth a notice. */
function notifyExcess(excess: Excess, facts: MailFacts, { notifier, clock }: CheckTools): void {
  const { limit, result } = excess;
  if (limit.notify && !limit.shadow && result.first)
    notifier.notify(excessNotice(excess, facts, clock.now()));
}

function excessNotice(
  { limit, hit, result }: Excess,
  { client, direction }: MailFacts,
  time: number,
): Notice {
  const { name, of, period, action } = limit;
  return {
    event: 'limit',
    time,
    subject: hit.key,
    text: `${usageText(limit, hit, result)}; ${DONE[action]}`,
    advice: advice(name, hit.key),
    facts: {
      limit: name,
      key: hit.key,
      counted: of,
      used: result.used,
      most: hit.most,
      period: periodText(period),
      action,
      direction,
      client: client.address,
      login: client.login,
    },
  };
}

const DONE = {
  defer: 'more is deferred until there is room',
  reject: 'more is refused until there is room',
  hold: 'more is put on hold until there is room',
  warn: 'more is let through',
} as const;

function usageText({ name, of }: Limit, { key, most, periodMs }: Hit, { used }: HitResult): string {
  return `limit "${name}": ${Math.ceil(used)} of ${most} ${of} within ${periodText(periodMs)} used by ${printable(key, 320)}`;
}

/** Commands to copy into a shell. */
function advice(name: string, key: string): readonly string[] {
  const word = shellWord(key);
  if (word === null) return [`postern limits list --limit ${name} --over`];
  return [
    `postern limits list --limit ${name} --key ${word}`,
    `postern limits reset --limit ${name} --key ${word}`,
  ];
}

function waitText(ms: number): string {
  const seconds = Math.ceil(ms / 1000);
  if (seconds < 120) return `${seconds} s`;
  const minutes = Math.ceil(seconds / 60);
  return minutes < 120 ? `${minutes} min` : `${Math.ceil(minutes / 60)} h`;
}
