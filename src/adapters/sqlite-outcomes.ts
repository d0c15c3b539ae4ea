import { z } from 'zod';

import type { SpamScan } from '../mail/spam-scan.ts';

/** Outcomes as JSON text in a column, and back. What another process wrote is checked like any other input. */

const spamScan = z.object({
  score: z.number(),
  required: z.number(),
  rules: z.array(z.string()),
  fields: z.array(z.object({ name: z.string(), value: z.string() })),
  user: z.exactOptional(z.string()),
  rewritten: z.exactOptional(z.boolean()),
}) satisfies z.ZodType<SpamScan>;

const authResult = z.object({
  method: z.enum(['spf', 'dkim', 'dmarc', 'arc', 'auth']),
  result: z.string(),
  comment: z.exactOptional(z.string()),
  properties: z.array(z.tuple([z.string(), z.string()])),
});

const threshold = z.exactOptional(z.nullable(z.number()));

/** What was set for the mailboxes of a recipient, so that a decision can be made again. */
const mailboxSettings = z.object({
  mailbox: z.nullable(z.string()),
  thresholds: z.exactOptional(
    z.object({ tag: threshold, junk: threshold, reject: threshold, discard: threshold }),
  ),
  subjectTag: z.exactOptional(z.string()),
  rewriteBody: z.exactOptional(z.boolean()),
});

const finding = z.object({
  code: z.string(),
  detail: z.string(),
  score: z.exactOptional(z.number()),
  recipient: z.exactOptional(z.number()),
  auth: z.exactOptional(authResult),
  explanation: z.exactOptional(z.object({ by: z.string(), text: z.string() })),
  scan: z.exactOptional(spamScan),
  settings: z.exactOptional(z.array(mailboxSettings)),
  setting: z.exactOptional(z.enum(['override', 'directory'])),
  waives: z.exactOptional(z.array(z.string())),
});

const outcome = z.discriminatedUnion('kind', [
  z.object({
    kind: z.literal('found'),
    check: z.string(),
    findings: z.array(finding),
    elapsed: z.number(),
  }),
  z.object({
    kind: z.literal('unavailable'),
    check: z.string(),
    reason: z.enum(['deadline', 'neighbour', 'failed', 'needs']),
    detail: z.string(),
    elapsed: z.number(),
  }),
]);

export const outcomeList = z.array(outcome);

export function json<T extends z.ZodType>(schema: T): z.ZodPipe<z.ZodTransform<unknown, string>, T> {
  return z.transform((text: string): unknown => JSON.parse(text)).pipe(schema);
}
