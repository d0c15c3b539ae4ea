/**
 * A refusal in SMTP's words. RFC 5321 §4.2, RFC 3463.
 *
 * The class of the enhanced code is not stored, it follows from the code, so a 4xx with a 5.x.x cannot be written.
 */
export interface Reply {
  readonly code: ReplyCode;
  /** Subject and detail of the enhanced code: `7.23`. */
  readonly detail: string;
  /** One line of printable ASCII. */
  readonly text: string;
}

export type TemporaryCode = 421 | 450 | 451 | 452 | 454 | 455;
export type PermanentCode = 521 | 550 | 551 | 552 | 553 | 554 | 555 | 556;
export type ReplyCode = TemporaryCode | PermanentCode;

/** The longest reply text that is sent; Postfix cuts the whole line at 510. */
const TEXT_LIMIT = 400;

export function enhancedCode(reply: Reply): string {
  return `${reply.code < 500 ? 4 : 5}.${reply.detail}`;
}

/** `550 5.7.23 text (trace)`, safe to put on a line of its own whatever the text was made from. */
export function replyLine(reply: Reply, trace: string | null = null): string {
  const text = `${reply.code} ${enhancedCode(reply)} ${printable(reply.text, TEXT_LIMIT)}`;
  return trace === null ? text : `${text} (${trace})`;
}

export function withText(reply: Reply, text: string): Reply {
  return { ...reply, text };
}

export function isTemporary(reply: Reply): boolean {
  return reply.code < 500;
}

/** Remote text made harmless: each character outside printable US-ASCII becomes `?`, and the whole is cut at `limit`. */
export function printable(text: string, limit: number): string {
  const cut = text.length > limit ? `${text.slice(0, limit - 3)}...` : text;
  return cut.replaceAll(/[^\x20-\x7e]/g, '?');
}

/** The longest remote text in a log line. */
const LOG_TEXT_LIMIT = 320;

/** A text for a log line or a record; JSON leaves the C1 controls, which terminals obey, as they are. */
export function logText<T extends string | null>(text: T): string | T {
  return text === null ? text : printable(text, LOG_TEXT_LIMIT);
}
