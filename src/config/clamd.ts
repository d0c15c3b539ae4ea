import { z } from 'zod';

import { socketAddress } from './values.ts';

/** `[clamd]` */
export const clamd = z
  .strictObject({
    enabled: z
      .union([z.literal('auto'), z.boolean()], 'expected "auto", true or false')
      .default('auto')
      .describe(
        '"auto": used from the moment on when a clamd answers at one of the addresses, which are looked at every 30 s; until then the check "virus" is left out and clamd reported as not there. true: always used. Once it is used and does not answer, the rule in [unavailable] for "virus" says what happens. false: never used.',
      )
      .meta({ title: '"auto", true or false' }),
    addresses: z
      .array(socketAddress(), 'expected a list of socket addresses')
      .min(1)
      .max(16)
      .prefault(['unix:/run/clamav/clamd.ctl'])
      .describe(
        'Where clamd listens: "host:port" or "unix:/path". Of several, the one with the least to do is asked; one that fails is left alone for a while.',
      )
      .meta({ title: 'list of socket addresses' }),
    max_connections: z
      .int()
      .min(1)
      .max(1000)
      .default(10)
      .describe('Messages that each clamd is given at once; more wait their turn. Its own MaxThreads.')
      .meta({ title: 'number' }),
  })
  .prefault({})
  .describe('ClamAV, which the check "virus" gives messages to.');
