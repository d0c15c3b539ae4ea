/**
 * The ledger of backscatter: mail that this site had accepted when lmtp-filter refused it. Each refusal is a bounce, which had better been
 * a refusal in the SMTP session, and each mailbox that is full makes mail wait that had better been refused.
 */
export const BACKSCATTER_KINDS = [
  'full_deferred',
  'full_refused',
  'unknown_user',
  'verdict',
  'other',
] as const;

export type BackscatterKind = (typeof BACKSCATTER_KINDS)[number];

/** Whether a reply of ours belongs into the ledger. The same as `backscatter` of HistoryFilter. */
export function isBackscatter(reply: string): boolean {
  return reply.startsWith('5') || /^452[ -]4\.2\.2\b/.test(reply);
}

/** What a reply in the ledger is counted as. `ours`: our verdict refused, and not Dovecot. */
export function backscatterKind(reply: string, ours: boolean): BackscatterKind {
  if (reply.startsWith('4')) return 'full_deferred';
  if (ours) return 'verdict';
  // RFC 3463 §3.2, §3.3
  if (/^5\d\d[ -]5\.2\.2\b/.test(reply)) return 'full_refused';
  return /^5\d\d[ -]5\.1\.1\b/.test(reply) ? 'unknown_user' : 'other';
}
