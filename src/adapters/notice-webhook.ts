import type { Notice } from '../ports/notifier.ts';
import { NoticeRefused, type Deliver } from './notice-channel.ts';

export interface WebhookOptions {
  readonly url: string;
  /** One field of the request, such as Authorization; null: none. */
  readonly header: { readonly name: string; readonly value: string } | null;
  readonly hostname: string;
}

/** RFC 9110 §15.5.9 (408), RFC 6585 §4 (429): try again. */
const LATER: ReadonlySet<number> = new Set([408, 429]);

/** Notices as JSON, by POST. */
export function webhookDelivery({ url, header, hostname }: WebhookOptions): Deliver {
  return async (notice, signal) => {
    const headers = new Headers({ 'content-type': 'application/json', 'user-agent': 'postern' });
    if (header !== null) headers.set(header.name, header.value);
    const body = JSON.stringify(noticeJson(notice, hostname));
    // A redirect would carry the header to somebody else.
    const response = await fetch(url, { method: 'POST', headers, body, redirect: 'manual', signal });
    // What it says is of no use, and may be long.
    await response.body?.cancel();
    const { status } = response;
    if (status >= 200 && status < 300) return;
    const why = `the webhook answered ${status}`;
    throw status < 500 && !LATER.has(status) ? new NoticeRefused(why) : new Error(why);
  };
}

function noticeJson({ event, time, subject, text, advice, facts }: Notice, host: string): object {
  return { event, time: new Date(time).toISOString(), host, subject, text, advice, facts };
}
