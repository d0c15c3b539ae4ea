import { z } from 'zod';

import { duration } from '../checks/options.ts';
import { sizeBetween, socketAddress } from './values.ts';

const MIB = 1024 ** 2;

/** `[quarantine]` */
export const quarantine = z
  .strictObject({
    where: z
      .enum(['postfix', 'folder'])
      .default('postfix')
      .describe(
        'Where mail goes that a rule quarantines. "postfix": the milter has it put on hold in Postfix\'s queue; lmtp-filter delivers it as junk. "folder": both put it into the folder "quarantine" within state.folder, and Postfix has it no more. What policyd quarantines is always on hold, since policyd never has a message.',
      ),
    max_age: duration()
      .prefault('30d')
      .describe('Messages in the folder that are older are removed. Those on hold in Postfix stay there.'),
    max_size: sizeBetween(MIB, 1024 ** 4 * 16)
      .prefault('10GiB')
      .describe('Size of all messages in the folder. To keep below it the oldest are removed.'),
    max_messages: z
      .int()
      .min(1)
      .max(1_000_000)
      .default(10_000)
      .describe('Number of messages in the folder. To keep below it the oldest are removed.')
      .meta({ title: 'number' }),
    least_age: duration()
      .prefault('1d')
      .describe(
        'Messages that are younger are never removed to make room: new ones are deferred instead (451), so that a flood does not wash out what nobody has seen yet.',
      ),
    release_to: socketAddress()
      .transform((address, context) => {
        if (address.kind === 'tcp') return address;
        context.addIssue({ code: 'custom', message: 'expected "host:port": a listener for SMTP' });
        return z.NEVER;
      })
      .prefault('127.0.0.1:10026')
      .describe(
        'SMTP listener that takes released messages: one of Postfix without milters; "postern wire postfix" prints it.',
      ),
  })
  .prefault({})
  .describe('Where quarantined mail is kept. "postern quarantine" lists, shows, releases and deletes it.');
