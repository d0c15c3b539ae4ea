import { unfold, type HeaderList } from '../mail/header.ts';

/** More Received fields than any path through the net has: the message goes in a circle. RFC 5321 §6.3. */
export const HOP_LIMIT = 50;
/** Characters of a Received field that are looked at. */
const TEXT_LIMIT = 2000;

/** What the MTA in front of us wrote on top. */
export interface LastHop {
  readonly queueId: string | null;
  /** Submitted by a login: `with ESMTPA`, `ESMTPSA`, `UTF8SMTPSA`. RFC 3848, RFC 6531 §4.3. */
  readonly authenticated: boolean;
}

// Postfix: "from HELO (NAME [ADDR]) by HOST (Postfix) with ESMTP id QUEUEID for <...>; DATE" and, for sendmail(1), "by HOST
// (Postfix, from userid 0) id QUEUEID; DATE".
const HOP =
  / by [^\s;]{1,255} \([^()]{1,100}\)(?: with (?<protocol>[A-Z0-9]{1,16}))? id (?<id>[0-9A-Za-z]{1,64})(?:;| for |$)/g;

/**
 * Reads the topmost Received field; a message from Postfix has Postfix's own there. With `queueId` (from XFORWARD) only words that
 * bear this id count: a client can't know it, whatever it managed to have written into the field.
 */
export function lastHop(headers: HeaderList, queueId: string | null): LastHop {
  const field = headers.first('Received');
  if (field === undefined) return { queueId, authenticated: false };
  const text = ` ${unfold(field.value.slice(0, TEXT_LIMIT)).replaceAll(/\s+/g, ' ')}`;
  for (const { groups } of text.matchAll(HOP)) {
    const id = groups?.['id'] ?? null;
    if (queueId === null || id === queueId) {
      return { queueId: id, authenticated: /SMTPS?A$/.test(groups?.['protocol'] ?? '') };
    }
  }
  return { queueId, authenticated: false };
}

export function isLooping(headers: HeaderList): boolean {
  return headers.all('Received').length > HOP_LIMIT;
}
