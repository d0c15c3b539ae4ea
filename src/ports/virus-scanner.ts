/** What a scanner says of one message. */
export type VirusAnswer =
  | { readonly kind: 'clean' }
  /** `signature` is the scanner's name for what it found. */
  | { readonly kind: 'found'; readonly signature: string }
  /** More octets than the scanner takes: it did not look. */
  | { readonly kind: 'too-large' }
  /** The scanner itself says that it could not look. */
  | { readonly kind: 'error'; readonly text: string }
  /** The patience that was agreed on is used up. */
  | { readonly kind: 'timeout' };

/** One message on its way to a scanner. */
export interface VirusScan {
  /**
   * The next octets, which must not change any more. A promise is to be awaited before more is given. Never throws, never rejects: what
   * goes wrong is told by `end`, and what comes meanwhile is dropped.
   */
  write(chunk: Uint8Array): Promise<void> | undefined;
  /** The message has ended. @throws {NeighbourError} when the scanner could not be asked, or answered nonsense */
  end(): Promise<VirusAnswer>;
}

export interface VirusScanner {
  /**
   * Begins with a message.
   *
   * @param patienceMs the longest that the scanner may keep us waiting in all: for a free place, for taking octets, for its answer
   * @param signal aborts when nobody wants to know any more
   */
  begin(patienceMs: number, signal: AbortSignal): VirusScan;
  /** Whether any scanner answers at all. @throws {NeighbourError} */
  ping(signal: AbortSignal): Promise<void>;
}
