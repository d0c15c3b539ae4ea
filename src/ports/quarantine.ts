import type { Direction } from '../mail/envelope.ts';
import type { HeaderList } from '../mail/header.ts';
import type { Body } from '../mail/message.ts';

/** A message with all that is needed to judge it by eye, and to send it on. Text is latin1: one character for each octet. */
export interface QuarantinedMail {
  readonly daemon: 'milter' | 'lmtp-filter';
  readonly trace: string;
  readonly queueId: string | null;
  /** Milliseconds since 1970. */
  readonly time: number;
  readonly direction: Direction;
  readonly client: string;
  readonly helo: string | null;
  readonly login: string | null;
  /** As `pathText` gives it: empty for the null path. */
  readonly sender: string;
  readonly recipients: readonly string[];
  readonly rule: string;
  readonly why: string;
  readonly score: number | null;
  /** The header section as it came: with sender and body it says whether this message is here already. */
  readonly came: HeaderList;
  /** The header section as it is to leave. */
  readonly leaves: HeaderList;
  readonly body: Body;
}

/** What lmtp-filter is given to deliver. */
export interface ArrivedMail {
  readonly sender: string;
  readonly headers: HeaderList;
  readonly body: Body;
}

/** Our own store of quarantined messages. */
export interface Quarantine {
  /**
   * Keeps a message: once this resolves it survives a crash of the machine. The same message again (an answer was lost, so it was sent once more) adds
   * the recipients that are new.
   *
   * @returns its name in the quarantine
   * @throws when it could not be kept: it must not be accepted then
   */
  store(mail: QuarantinedMail): Promise<string>;
  /** The name of the message that somebody released, when it is one and came back unchanged; null when not. */
  released(mail: ArrivedMail): Promise<string | null>;
}

/** The field that says so, above everything that was released and below what the MTA put on top. */
export const RELEASE_FIELD = 'X-Postern-Release';
