import { sessionKey, type Direction } from '../mail/envelope.ts';
import { unfold, type HeaderList } from '../mail/header.ts';
import { pathText, type ReversePath } from '../mail/address.ts';
import type { Config } from '../config/config.ts';
import type { KeptFacts, Store, TraceId } from '../ports/store.ts';
import type { Log } from '../runtime/telemetry.ts';
import { withinDeadline } from '../runtime/deadline.ts';
import { newTraceId } from '../runtime/trace-id.ts';
import { judgedByMilter } from '../verdict/edits.ts';
import { lastHop } from './received.ts';
import type { Forwarded } from './xforward.ts';

/** The longest the store may take; then the message goes by a trace of its own, and is judged here. */
export const STORE_DEADLINE_MS = 1000;

/** Where a message comes from, and what is known of it already. */
export interface Origin {
  readonly trace: TraceId;
  readonly queueId: string | null;
  readonly direction: Direction;
  /** What the milter found out about it; null: it did not judge this message, or that can't be known. */
  readonly milter: KeptFacts | null;
}

export interface OriginInput {
  readonly headers: HeaderList;
  readonly forwarded: Forwarded;
  readonly sender: ReversePath;
  readonly config: Config;
  readonly store: Store;
  readonly log: Log;
}

/**
 * A trace field counts when it stands above the topmost Received, where a client can't write, and when the store knows it together
 * with this queue id. Everything else in the message may be a forger's.
 */
export async function originOf(input: OriginInput): Promise<Origin> {
  const { headers, forwarded } = input;
  const hop = lastHop(headers, forwarded.queueId);
  const { queueId } = hop;
  const claimed = traceOnTop(headers);
  if (claimed !== null && queueId !== null) {
    const milter = await keptFacts(input, claimed, queueId);
    if (milter !== null) return { trace: claimed, queueId, direction: milter.direction, milter };
  }
  return {
    trace: await joinTrace(input, queueId),
    queueId,
    direction: directionOf(input, hop.authenticated),
    milter: null,
  };
}

/** Mail is outgoing, and not judged as mail from outside, when it is our users': sent here, from an own network, or by a login. */
export function directionOf(
  { forwarded, config }: Pick<OriginInput, 'forwarded' | 'config'>,
  authenticated: boolean,
): Direction {
  const { client, source, queueId } = forwarded;
  // XFORWARD's SOURCE is Postfix's header rewriting context: it may be LOCAL for a client outside (XCLIENT, or a wide
  // local_header_rewrite_clients), so that it says something only of mail that no client brought.
  const ours = client.address === '' ? source === 'local' : config.file.site.own_networks.has(client.address);
  if (ours) return 'out';
  // Without the queue id that XFORWARD gives, the field could be a client's.
  return authenticated && queueId !== null ? 'out' : 'in';
}

function traceOnTop(headers: HeaderList): TraceId | null {
  const field = headers.first('X-Postern-Trace');
  const trace = field === undefined ? '' : unfold(field.value);
  return /^[a-z2-7]{16}$/.test(trace) && judgedByMilter(headers, trace) ? trace : null;
}

async function keptFacts(
  { store, log }: OriginInput,
  trace: TraceId,
  qid: string,
): Promise<KeptFacts | null> {
  try {
    return await withinDeadline(store.keptFacts(trace, qid), STORE_DEADLINE_MS, 'the store');
  } catch (error) {
    const fields = { daemon: 'lmtp-filter', trace, qid, err: error };
    log.warn(fields, 'what the milter found could not be read');
    return null;
  }
}

/** Mail does not stop for the record. */
export async function joinTrace(
  { forwarded, sender, store, log }: Pick<OriginInput, 'forwarded' | 'sender' | 'store' | 'log'>,
  queueId: string | null,
): Promise<TraceId> {
  const fresh = newTraceId();
  const keys = { session: sessionKey(forwarded.client), sender: pathText(sender), instance: null, queueId };
  try {
    return await withinDeadline(store.joinTrace(keys, fresh), STORE_DEADLINE_MS, 'the store');
  } catch (error) {
    log.warn(
      { daemon: 'lmtp-filter', trace: fresh, qid: queueId, err: error },
      'trace could not be joined in the store',
    );
    return fresh;
  }
}
