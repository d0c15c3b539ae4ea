import type { Direction } from '../mail/envelope.ts';
import type { Outcome } from '../verdict/finding.ts';
import type { ShadowVerdict, VerdictKind } from '../verdict/verdict.ts';

export type DaemonName = 'policyd' | 'milter' | 'lmtp-filter';

/** Names one message through all daemons: 16 characters of base32 (80 random bits). Unguessable. */
export type TraceId = string;

/** What a daemon knows of a message that lets another daemon's trace be found. */
export interface TraceKeys {
  /** Client address and port (`sessionKey`). */
  readonly session: string | null;
  /** Envelope sender as `pathText` gives it. */
  readonly sender: string;
  /** Postfix's instance attribute (policy requests only). */
  readonly instance: string | null;
  readonly queueId: string | null;
}

/** What was decided about a message at one stage, with the facts it rests on. Never holds bodies. */
export interface Decision {
  readonly trace: TraceId;
  /** Milliseconds since 1970. */
  readonly time: number;
  readonly daemon: DaemonName;
  /** `rcpt` (policyd), `message` (milter, lmtp-filter), and the other states of the policy protocol in lower case. */
  readonly stage: string;
  readonly direction: Direction;
  readonly queueId: string | null;
  readonly client: string;
  readonly helo: string | null;
  readonly login: string | null;
  readonly sender: string;
  /** Those whom this decision concerns: one for policyd at RCPT and for lmtp-filter, all for the milter. */
  readonly recipients: readonly string[];
  readonly messageId: string | null;
  /** Octets; null when not known yet. */
  readonly size: number | null;
  readonly verdict: VerdictKind;
  readonly rule: string;
  readonly why: string;
  readonly score: number | null;
  readonly tagged: boolean;
  /** What was answered, in the protocol's words. */
  readonly reply: string;
  readonly shadow: readonly ShadowVerdict[];
  readonly outcomes: readonly Outcome[];
  /** Milliseconds from the first byte of the question to the answer. */
  readonly elapsed: number;
  /** The host that decided; in answers of `history` of a store that several hosts share. */
  readonly host?: string;
  /** What users said of the message since; in answers of `history` only, and left out when nobody said anything. */
  readonly labels?: readonly Label[];
}

export const LABEL_KINDS = ['spam', 'ham'] as const;

export type LabelKind = (typeof LABEL_KINDS)[number];

/** What a user says a message is. */
export interface Label {
  /** The message's trace; of a message without one its Message-ID as decisions have it. */
  readonly message: string;
  /** Login name; empty: the operator of the site. */
  readonly user: string;
  readonly label: LabelKind;
  /** Milliseconds since 1970. */
  readonly time: number;
}

/** What the milter found out about one message. Holds the scanner's whole answer, and is kept for a day at most. */
export interface KeptFacts {
  readonly direction: Direction;
  readonly outcomes: readonly Outcome[];
}

export interface HistoryFilter {
  readonly trace?: TraceId;
  readonly queueId?: string;
  /** Whole address, or `@domain`. */
  readonly sender?: string;
  readonly recipient?: string;
  readonly client?: string;
  readonly daemon?: DaemonName;
  readonly verdict?: VerdictKind;
  /** Exact, or a prefix ending in `*`. */
  readonly rule?: string;
  /** Only mail that this site had accepted when lmtp-filter refused it, or put it off because the mailbox is full. */
  readonly backscatter?: true;
  /** Milliseconds since 1970. */
  readonly since?: number;
  readonly until?: number;
  /** Newest first; at most this many. */
  readonly limit: number;
}

/** What a store takes, after the oldest decisions were removed. */
export interface Trimmed {
  /** Octets in use; null: this store is bounded by something else. */
  readonly octets: number | null;
  /** How many went. */
  readonly decisions: number;
}

/** What is kept between messages and shared by the daemons. Speaks of mail, not of keys and values. */
export interface Store {
  /**
   * policyd, at the first request of an instance: the trace of that message; `fresh` becomes its trace when it has none yet. At once, without
   * a promise, when the message has no queue id yet and so is new; the other daemons know of it some milliseconds later.
   */
  openTrace(keys: TraceKeys, fresh: TraceId): TraceId | Promise<TraceId>;
  /**
   * milter and lmtp-filter: the trace another daemon opened for this message, by queue id or by the newest unclaimed one of the session with
   * the same sender; `fresh` when there is none. Claims it, and notes the queue id.
   */
  joinTrace(keys: TraceKeys, fresh: TraceId): TraceId | Promise<TraceId>;
  /**
   * milter: keeps what it found out about a message that goes on, so that lmtp-filter need not find it out again. Returns at once; what can't be
   * written is counted and logged by the store.
   */
  keepFacts(trace: TraceId, queueId: string, facts: KeptFacts): void;
  /**
   * lmtp-filter: what was kept under this trace for this queue id; null when there is nothing, or it is too old. Waits for some
   * hundred milliseconds for what is not there, because it may be on its way.
   */
  keptFacts(trace: TraceId, queueId: string): Promise<KeptFacts | null>;
  /** Queues a decision to be written; returns at once. Decisions that can't be written are counted and logged by the store. */
  record(decision: Decision): void;
  /** Writes what is queued: decisions, and traces that were opened. */
  flush(): Promise<void>;
  history(filter: HistoryFilter): Promise<readonly Decision[]>;
  /** Keeps what a user says of a message: one label for each message and user, of which the last one stands. Resolves once it is written. */
  label(label: Label): Promise<void>;
  /** Removes what is older than `before` (milliseconds since 1970); returns how many decisions went. */
  expire(before: number): Promise<number>;
  /** Removes the oldest decisions until what is kept takes no more than `octets`. */
  trim(octets: number): Promise<Trimmed>;
}
