/** Who writes to whom, as greylisting knows them. All in lower case. */
export interface Triplet {
  /** The client's network: `192.0.2.0/24`, `2001:db8::/64`. */
  readonly network: string;
  /** Envelope sender; empty for bounces. */
  readonly sender: string;
  /** Recipient without address extension. */
  readonly recipient: string;
}

export interface GreylistTimes {
  /** How long a new triplet waits, milliseconds. */
  readonly delayMs: number;
  /** How long after its first attempt a retry still counts as one, milliseconds. */
  readonly windowMs: number;
  /** How long a triplet that passed is remembered after its last message, milliseconds. */
  readonly ageMs: number;
  /** So many triplets that passed make their network known; 0: never. */
  readonly clientPasses: number;
}

export type GreylistAnswer =
  /** Too early; `first`: never seen before (or too long ago). */
  | { readonly kind: 'wait'; readonly first: boolean; readonly remainingMs: number }
  /** This attempt is the retry that was waited for. */
  | { readonly kind: 'passed'; readonly waitedMs: number }
  /** It passed before. */
  | { readonly kind: 'known' }
  /** Its network has passed often enough. */
  | { readonly kind: 'client' }
  /** The recipient wrote to the sender first. */
  | { readonly kind: 'correspondent' };

/** One of our users wrote to somebody outside. Lower case, without address extension. */
export interface Correspondence {
  readonly local: string;
  readonly remote: string;
}

export interface GreylistState {
  /** Judges one attempt and remembers it, in one step. */
  greylist(triplet: Triplet, times: GreylistTimes): Promise<GreylistAnswer>;
  /** Remembers whom our users wrote to, for `ageMs` after the last time. */
  correspond(pairs: readonly Correspondence[], ageMs: number): Promise<void>;
}
