import { z } from 'zod';

import { duration } from '../checks/options.ts';

/** Keys of `[signing]` that say how signing keys come and go: `postern keys`, and what the milter makes of a key that is not in DNS. */

const UNPUBLISHED = ['warn', 'skip', 'sign'] as const;

export type Unpublished = (typeof UNPUBLISHED)[number];

const DAY_MS = 86_400_000;

export const keyLife = {
  unpublished: z
    .enum(UNPUBLISHED)
    .default('warn')
    .describe(
      'What becomes of signatures with a key that none of the name servers of its domain has: "warn" makes them and says so in log and metrics, "skip" leaves them out until the key is published, "sign" makes them and does not look. Looked at in the background; while nobody can tell, it is signed.',
    ),
  new_keys: z
    .array(z.enum(['rsa', 'ed25519']))
    .min(1)
    .refine((kinds) => new Set(kinds).size === kinds.length, 'expected each kind once')
    .default(['rsa', 'ed25519'])
    .describe(
      'Kinds of keys that "postern keys" makes for a domain. Verifiers that do not know Ed25519 use the signature with RSA.',
    ),
  rsa_bits: z
    .union([z.literal(2048), z.literal(3072), z.literal(4096)], 'expected 2048, 3072 or 4096')
    .default(2048)
    .meta({ title: 'number' })
    .describe('Bits of new RSA keys: 2048, 3072 or 4096. Some verifiers take no more than 2048.'),
  rotate_every: duration()
    .refine((ms) => ms >= DAY_MS, 'expected "1d" or more')
    .prefault('365d')
    .meta({ title: 'duration' })
    .describe('How long a key signs before "postern keys rotate" goes on to the next one.'),
  queue_lifetime: duration()
    .prefault('5d')
    .describe(
      "How long the record of an old key must stay in DNS: the longest that mail can wait in a queue, Postfix's maximal_queue_lifetime.",
    ),
} as const;
