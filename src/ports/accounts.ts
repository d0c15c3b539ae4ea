/** One value that a subject was seen with: a recipient of a login, a login tried from a network. */
export interface Sighting {
  /** What kind of set: `recipient`, `login-network`. One lower-case word with hyphens. */
  readonly kind: string;
  readonly subject: string;
  readonly value: string;
  /** How long a value counts after it was last seen, milliseconds. */
  readonly windowMs: number;
}

export interface SightingResult {
  /** Not seen with this subject within the window before. */
  readonly fresh: boolean;
  /** How many different values the subject was seen with within the window, this one included; at most DISTINCT_LIMIT. */
  readonly distinct: number;
}

/** The most values that are kept, and counted, for one subject; the oldest go first. */
export const DISTINCT_LIMIT = 2000;

/** What a subject did in one hour: named counts that add up. */
export interface Tally {
  readonly subject: string;
  /** Begin of the hour, milliseconds since 1970. */
  readonly hour: number;
  readonly counts: Readonly<Record<string, number>>;
}

/** What an account that behaves unlike itself may still do, in rising order. */
export const STANDINGS = ['free', 'observe', 'slow', 'hold', 'block'] as const;
export type StandingKind = (typeof STANDINGS)[number];

export interface Standing {
  readonly login: string;
  readonly kind: StandingKind;
  /** Why, for people. */
  readonly why: string;
  /** `postern` when it was found out, `operator` when somebody said so. */
  readonly by: 'postern' | 'operator';
  /** Milliseconds since 1970. */
  readonly since: number;
  /** When it lapses by itself, milliseconds since 1970; null: never. */
  readonly until: number | null;
}

export interface AccountState {
  /** Notes the values and answers in their order, in one step. */
  seen(sightings: readonly Sighting[]): Promise<readonly SightingResult[]>;
  /** Adds to the counts of the hour. */
  tally(entries: readonly Tally[]): Promise<void>;
  /** The hours of one subject from `since` (milliseconds since 1970) on, oldest first. */
  tallies(subject: string, since: number): Promise<readonly Tally[]>;
  /** null: nothing is known against the login. */
  standing(login: string): Promise<Standing | null>;
  /** Sets it, whatever it was; `free` forgets it. */
  setStanding(standing: Standing): Promise<void>;
  /** Sets it only when it is more severe than the one there is; true when it was. For several hosts that notice the same at once. */
  raiseStanding(standing: Standing): Promise<boolean>;
  standings(): Promise<readonly Standing[]>;
}
