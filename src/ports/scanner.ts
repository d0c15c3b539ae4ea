import type { HeaderField } from '../mail/header.ts';
import type { Message } from '../mail/message.ts';
import type { SpamScan } from '../mail/spam-scan.ts';

export interface ScanRequest {
  readonly message: Message;
  /** Fields to show to the scanner above the message's own; never delivered (envelope and last hop, see `protocols`). */
  readonly preamble: readonly HeaderField[];
  /** Fields of the message that the scanner must not see. */
  readonly hide: (field: HeaderField) => boolean;
}

export interface SpamScanner {
  /** @throws {NeighbourError} */
  scan(request: ScanRequest, signal: AbortSignal): Promise<SpamScan>;
  /** Whether it answers at all. @throws {NeighbourError} */
  ping(signal: AbortSignal): Promise<void>;
}
