/** What was said of a message while nobody answered: a request as it would have come by the socket. */
export interface SpooledRequest {
  /** Octets from the first on. */
  readonly octets: Uint8Array;
  /** When it was said, in milliseconds since 1970. */
  readonly time: number;
}

/** Where Dovecot leaves what users say while this program is away. Others write there: what is in it is not to be trusted. */
export interface SpooledFeedback {
  /** Names of what waits, the oldest first. */
  waiting(): Promise<readonly string[]>;
  /** No more than `limit` octets of it; null: it is gone, or nothing that could be read. */
  read(name: string, limit: number): Promise<SpooledRequest | null>;
  remove(name: string): Promise<void>;
}
