/** Something somebody should hear of. Never holds message content. */
export interface Notice {
  readonly event: 'limit' | 'quota' | 'account' | 'login';
  /** Milliseconds since 1970. */
  readonly time: number;
  /** Whom it is about: a login, a mailbox, a network. */
  readonly subject: string;
  /** One line for people: what happened. */
  readonly text: string;
  /** What to do about it, commands included; one line for each. */
  readonly advice: readonly string[];
  readonly facts: Readonly<Record<string, string | number | boolean | null>>;
}

export interface Notifier {
  /** Hands it on by mail and webhook, as configured. Returns at once; what can't be sent is tried again, then counted and logged. */
  notify(notice: Notice): void;
}
