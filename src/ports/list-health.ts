/** What came of one question to a block or welcome list. */
export const LIST_ANSWERS = [
  'listed',
  'unlisted',
  /** An entry, by a code that the configuration does not count. */
  'uncounted',
  /** The list says that it does not serve our name server. */
  'blocked',
  /** An answer that no list gives: an address outside of 127.0.0.0/8, as of a domain that was sold. */
  'broken',
  'timeout',
  'failed',
  /** It was not asked, because it can't be believed. */
  'skipped',
] as const;
export type ListAnswer = (typeof LIST_ANSWERS)[number];

/** A name whose answer is known if the list is in order. RFC 5782 §5. */
export interface ListProbe {
  /** The whole name that is asked for. */
  readonly name: string;
  readonly listed: boolean;
}

export interface WatchedList {
  readonly name: string;
  readonly zone: string;
  /** Empty: it has no test entries and is believed. */
  readonly probes: readonly ListProbe[];
  /** Whether an address of 127.0.0.0/8 says that the list does not serve our name server. */
  blocked(address: string): boolean;
}

/** Knows which lists are in order: a list that is gone, or that lists everything, must not be believed. */
export interface ListHealth {
  /** Whether what the list of this name says counts; false until its test entries have been seen. */
  trusted(list: string): boolean;
  /** Counts an answer. One that speaks against the list has it looked at soon. */
  noted(list: string, answer: ListAnswer): void;
}
