import { lastHop } from '../checks/spam-preamble.ts';
import type { Config } from '../config/config.ts';
import { pathText } from '../mail/address.ts';
import type { Direction, Envelope } from '../mail/envelope.ts';
import { HeaderList } from '../mail/header.ts';
import type { Body } from '../mail/message.ts';
import { withinDeadline } from '../runtime/deadline.ts';
import { applyEdits, type Edit } from '../verdict/edits.ts';
import type { Policy, Rule, Rules } from '../verdict/rules.ts';
import type { Verdict } from '../verdict/verdict.ts';
import { NOT_QUARANTINED } from './refusal.ts';
import type { MessageContext, Transaction } from './transaction.ts';

/** Writing and syncing the largest message, to a disk that is busy; Postfix waits 300 s. */
const KEEPING_MS = 60_000;

/** Whether what is quarantined goes to our own folder, in place of Postfix's hold queue. */
export function keepsOwn({ file }: Config): boolean {
  return file.quarantine.where === 'folder';
}

const possible = new WeakMap<Config, Partial<Record<Direction, boolean>>>();

/** Whether a message can come to be kept here: its body must not be gone by then. */
export function mayBeKept(config: Config, direction: Direction): boolean {
  if (!keepsOwn(config)) return false;
  let known = possible.get(config);
  if (known === undefined) possible.set(config, (known = {}));
  return (known[direction] ??= quarantines(
    config,
    direction === 'in' ? config.policy : config.outgoingPolicy,
  ));
}

function quarantines({ checks }: Config, { site, overrides }: Policy): boolean {
  const byRules = ({ findings, unavailable }: Rules): boolean =>
    checks.some(
      ({ name, codes }) =>
        does(unavailable.get(name)) || Object.keys(codes).some((code) => does(findings.get(code))),
    );
  return byRules(site) || overrides.values().some(byRules);
}

function does(rule: Rule | undefined): boolean {
  return rule?.action.kind === 'quarantine' && rule.mode === 'enforce';
}

export interface Quarantined {
  readonly envelope: Envelope;
  readonly verdict: Verdict;
  readonly trace: string;
  readonly edits: readonly Edit[];
  /** As it is to leave. */
  readonly body: Body;
}

/**
 * Keeps the message as it would have left, under a Received field for the hop whose own one the MTA drops with its copy. The name it has
 * there; null when it could not be kept, and the message is refused for now.
 */
export async function keep(
  transaction: Transaction,
  { envelope, verdict, trace, edits, body }: Quarantined,
  { quarantine, config, checks, log, metrics }: MessageContext,
): Promise<string | null> {
  const { headers } = transaction;
  const { client, direction, queueId, sender, recipients } = envelope;
  const time = checks.clock.now();
  const hop = { name: 'Received', value: lastHop(envelope, config.file.site.hostname, time) };
  const { rule, why, score } = verdict;
  try {
    const stored = quarantine.store({
      daemon: 'milter',
      trace,
      queueId,
      time,
      direction,
      client: client.address,
      helo: client.helo,
      login: client.login,
      sender: pathText(sender),
      recipients: recipients.map(({ address }) => address.raw),
      rule,
      why,
      score,
      came: headers,
      leaves: new HeaderList([hop, ...applyEdits(headers, edits)]),
      body,
    });
    return await withinDeadline(stored, KEEPING_MS, 'the quarantine');
  } catch (error) {
    metrics.fault('quarantine');
    log.error({ daemon: 'milter', trace, err: error }, 'message could not be put into the quarantine');
    transaction.refuse(NOT_QUARANTINED);
    return null;
  }
}
