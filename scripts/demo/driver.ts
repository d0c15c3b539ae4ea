import type { DemoMail } from './mails.ts';
import type { Stage } from './stage.ts';

/** Postfix, Dovecot and spamd of the demo: the real ones, or somebody who plays them. */
export interface Driver extends AsyncDisposable {
  /** Port of the LMTP server behind lmtp-filter. */
  readonly upstream: number;
  readonly spamd: number | null;
  /** Joins with Postern, which runs by now. */
  connect(stage: Stage): Promise<void>;
  /** Sends one mail; what the client was told, the last reply last. */
  send(mail: DemoMail): Promise<readonly string[]>;
  /** The newest message of a mailbox that was delivered since it was last asked for; null when none comes. */
  collect(recipient: string): Promise<string | null>;
  /** How to send more, as lines for people. */
  how(stage: Stage): readonly string[];
}
