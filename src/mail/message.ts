import type { Envelope } from './envelope.ts';
import type { HeaderList } from './header.ts';

/** The body of a message: bytes after the empty line, with CRLF line ends. May be read several times, at once too. */
export interface Body {
  /** Octets. */
  readonly size: number;
  /** Reads from the first byte. In memory for small bodies, from a spool file for large ones. */
  chunks(): Iterable<Uint8Array> | AsyncIterable<Uint8Array>;
}

/** A whole message with its envelope. */
export interface Message {
  readonly envelope: Envelope;
  readonly headers: HeaderList;
  readonly body: Body;
  /**
   * Whether our own MTA's Received field is in `headers`. Postfix hides it from milters and shows it to LMTP, so what scans
   * a message at the milter stage has to write the last hop itself.
   */
  readonly received: boolean;
}
