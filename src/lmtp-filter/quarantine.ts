import type { Config } from '../config/config.ts';
import { pathText } from '../mail/address.ts';
import type { Message } from '../mail/message.ts';
import { RELEASE_FIELD, type Quarantine } from '../ports/quarantine.ts';
import { withinDeadline } from '../runtime/deadline.ts';
import type { Log } from '../runtime/telemetry.ts';
import { applyEdits, type Edit } from '../verdict/edits.ts';
import type { Sentence } from './judge.ts';
import type { Origin } from './origin.ts';
import { SAY, traced } from './render.ts';
import type { Statuses } from './statuses.ts';

/** Writing and syncing the largest message; Postfix waits 600 s. */
const KEEPING_MS = 60_000;
/** Reading a message once. */
const RELEASE_MS = 30_000;

export interface QuarantineTools {
  readonly quarantine: Quarantine;
  readonly config: Config;
  readonly log: Log;
}

/**
 * One sentence for all recipients when somebody released this message from the quarantine: it is delivered as it is. null: it is mail like any
 * other. The client must be one of our own networks', as the release is, and the seal must fit.
 */
export async function releaseOf(
  { envelope, headers, body }: Message,
  trace: string,
  { quarantine, config, log }: QuarantineTools,
): Promise<Sentence | null> {
  const { client, sender } = envelope;
  if (headers.first(RELEASE_FIELD) === undefined) return null;
  if (!config.file.site.own_networks.has(client.address)) return null;
  try {
    const opened = quarantine.released({ sender: pathText(sender), headers, body });
    const id = await withinDeadline(opened, RELEASE_MS, 'the quarantine');
    if (id === null) {
      log.warn(
        { daemon: 'lmtp-filter', trace },
        'message says that it was released from the quarantine, and was not',
      );
      return null;
    }
    const verdict = {
      kind: 'accept',
      rule: 'released',
      why: `released from the quarantine, where it was ${id}`,
      score: null,
      tagged: false,
      shadow: [],
    } as const;
    const edits = [{ kind: 'delete', name: RELEASE_FIELD, occurrence: 1 }] as const;
    return { verdict, edits, kept: false, wrapper: null, folder: null };
  } catch (error) {
    log.error({ daemon: 'lmtp-filter', trace, err: error }, 'a release could not be looked at');
    return null;
  }
}

interface KeepInput {
  readonly message: Message;
  readonly origin: Origin;
  readonly judged: readonly Sentence[];
  readonly statuses: Statuses;
  /** Milliseconds since 1970. */
  readonly time: number;
}

/** Puts the message away for those whose verdict says so, and answers for them: 250 only once it survives a crash. */
export async function keep(
  { message, origin, judged, statuses, time }: KeepInput,
  { quarantine, log }: QuarantineTools,
): Promise<void> {
  const { envelope, headers, body } = message;
  const { client, sender, recipients } = envelope;
  for (const [edits, positions] of groups(judged)) {
    const [first = 0] = positions;
    const { rule = '', why = '', score = null } = judged[first]?.verdict ?? {};
    try {
      const stored = quarantine.store({
        daemon: 'lmtp-filter',
        trace: origin.trace,
        queueId: origin.queueId,
        time,
        direction: origin.direction,
        client: client.address,
        helo: client.helo,
        login: client.login,
        sender: pathText(sender),
        recipients: positions.flatMap((position) => recipients[position]?.address.raw ?? []),
        rule,
        why,
        score,
        came: headers,
        leaves: applyEdits(headers, edits),
        body,
      });
      const id = await withinDeadline(stored, KEEPING_MS, 'the quarantine');
      for (const position of positions) {
        statuses.settle(position, traced(`${SAY.quarantined} ${id}`, origin.trace));
      }
    } catch (error) {
      const fields = { daemon: 'lmtp-filter', trace: origin.trace, qid: origin.queueId, err: error };
      log.error(fields, 'message could not be put into the quarantine');
      for (const position of positions) statuses.settle(position, traced(SAY.notQuarantined, origin.trace));
    }
  }
}

/** Positions that are kept, by what is done to the header section for them. */
function groups(judged: readonly Sentence[]): ReadonlyMap<readonly Edit[], readonly number[]> {
  const positions = new Map<readonly Edit[], number[]>();
  for (const [position, { edits, kept }] of judged.entries()) {
    if (!kept || edits === null) continue;
    const known = positions.get(edits);
    if (known === undefined) positions.set(edits, [position]);
    else known.push(position);
  }
  return positions;
}
