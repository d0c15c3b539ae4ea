import type { HeaderField } from '../mail/header.ts';
import type { Message } from '../mail/message.ts';
import type { SpamScan } from '../mail/spam-scan.ts';

export interface ScanRequest {
  readonly message: Message;
  /** Fields to show to the scanner above the message's own; never delivered (envelope and last hop). */
  readonly preamble: readonly HeaderField[];
  /** Fields of the message that the scanner must not see. */
  readonly hide: (field: HeaderField) => boolean;
  /** Octets of the body that are shown, from the first one on; no more than it has. */
  readonly bodyOctets: number;
  /** Whose preferences and training count; null: the site's. */
  readonly user: string | null;
  /** `score`: with the rules that hit. `fields`: the X-Spam-* fields, too. `rewriting`: the whole message as the scanner would deliver it, too. */
  readonly wanted: 'score' | 'fields' | 'rewriting';
}

export interface SpamScanner {
  /** @throws {NeighbourError} */
  scan(request: ScanRequest, signal: AbortSignal): Promise<SpamScan>;
  /** Whether any of it answers at all. @throws {NeighbourError} */
  ping(signal: AbortSignal): Promise<void>;
}
