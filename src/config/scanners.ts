import { z } from 'zod';

import { socketAddress, waitingTime, type SocketAddress } from './values.ts';

/** Servers of one kind that share the work. */
const SERVERS_LIMIT = 16;
const ADDRESSES_FORM =
  'expected "host:port" (IPv6 in brackets: "[::1]:783") or "unix:/absolute/path", or a list of 1 to 16 of these';

/** One address, or a list of them; always a list to the program. */
// oxlint-disable-next-line typescript/explicit-function-return-type
function addresses(usual: string) {
  return z
    .union([socketAddress(), z.array(socketAddress()).min(1).max(SERVERS_LIMIT)], ADDRESSES_FORM)
    .transform((one): readonly SocketAddress[] => ('kind' in one ? [one] : one))
    .meta({ title: 'socket address, or list of them' })
    .prefault(usual);
}

function concurrency(usual: number, what: string): z.ZodDefault<z.ZodInt> {
  return z.int().min(1).max(1000).default(usual).describe(what).meta({ title: 'number' });
}

const SEVERAL =
  'Of several, which must score alike, the one with the least to do is asked, and another one when it fails.';

/** `[spamd]` */
export const spamd = z
  .strictObject({
    enabled: z
      .union([z.literal('auto'), z.boolean()], 'expected "auto", true or false')
      .default('auto')
      .describe(
        '"auto": used when something answers at the address, which is looked at again every 30 s; when nothing does, the check "spam" is left out and reported as not there. true: always used; when it does not answer, the rule in [unavailable] for "spam" says what happens. false: never used.',
      )
      .meta({ title: '"auto", true or false' }),
    address: addresses('127.0.0.1:783').describe(
      `Where spamd listens: "host:port" or "unix:/path". ${SEVERAL}`,
    ),
    max_connections: concurrency(
      5,
      'Messages that each spamd is given at once; more wait their turn. Its own --max-children.',
    ),
    timeout: waitingTime()
      .prefault('30s')
      .describe('The longest one spamd may take for a message; then the next one is asked, if there is one.'),
  })
  .prefault({})
  .describe('SpamAssassin, which the check "spam" asks for a score.');

/** `[rspamd]` */
export const rspamd = z
  .strictObject({
    enabled: z
      .boolean()
      .default(false)
      .describe('Whether rspamd is asked for the score, in place of SpamAssassin.'),
    address: addresses('127.0.0.1:11333').describe(
      `Where rspamd's normal worker listens: "host:port" or "unix:/path". ${SEVERAL}`,
    ),
    max_connections: concurrency(20, 'Messages that each rspamd is given at once; more wait their turn.'),
    timeout: waitingTime()
      .prefault('15s')
      .describe(
        'The longest one rspamd may take for a message; then the next one is asked, if there is one.',
      ),
  })
  .prefault({})
  .describe(
    'rspamd, as a second backend of the check "spam". Its symbols and its score are taken; what it would do is a finding of its own ("spam.action-reject" and so on), and fields or a subject that it would set are not.',
  );
