import { basename } from 'node:path';

import { z } from 'zod';

import { permissions, printable, sizeBetween, socketAddress } from './values.ts';

const MIB = 1024 ** 2;
const FOLDERS_LIMIT = 16;
const SOCKET_FORM = 'expected "unix:/absolute/path" that ends in a name of letters, digits, "-", "_" and "."';

/** A mailbox name that Dovecot's configuration and Sieve take as it stands. */
function folder(): z.ZodString {
  const form = 'expected the name of an IMAP folder: 1 to 100 letters, digits, spaces and . _ / & - within';
  return z
    .string(form)
    .regex(/^[\p{L}\p{N}](?:[\p{L}\p{M}\p{N} ._/&-]{0,98}[\p{L}\p{M}\p{N}])?$/u, form)
    .meta({ title: 'text' });
}

/** A path that a shell and dovecot.conf take as it stands. */
function spoolPath(): z.ZodString {
  const form = 'expected an absolute path of letters, digits, "-", "_", "." and "/"';
  return z
    .string(form)
    .regex(/^(?:\/[A-Za-z0-9._-]+){1,16}$/, form)
    .max(200, form)
    .meta({ title: 'path' });
}

/** `[feedback]` */
export const feedback = z
  .strictObject({
    enabled: z
      .boolean()
      .default(false)
      .describe(
        'Whether Postern takes from Dovecot which mail users move into the junk folder and out of it. In the process of lmtp-filter; "postern wire dovecot" prints the lines for Dovecot.',
      ),
    listen: socketAddress()
      .transform((address, context) => {
        // Dovecot calls the program by the last part of the path.
        if (address.kind === 'unix' && /^[A-Za-z0-9][A-Za-z0-9._-]*$/.test(basename(address.path)))
          return address;
        context.addIssue({ code: 'custom', message: SOCKET_FORM });
        return z.NEVER;
      })
      .prefault('unix:/run/postern/feedback')
      .describe(
        'Where this listens: "unix:/path". Whoever may write there can teach in the name of any user.',
      ),
    mode: permissions().prefault('0660').describe('Permissions of the socket.'),
    group: printable(1, 32)
      .nullable()
      .default(null)
      .describe("Group that owns the socket: the one of Dovecot's IMAP processes, or its number.")
      .meta({ examples: ['vmail'], defaultText: 'the group of this process' }),
    spool: spoolPath()
      .nullable()
      .default(null)
      .describe(
        'Folder where Dovecot leaves what users say while Postern does not answer; it is taken from there later. Made at the start when it is missing. On a disk, and not within state.folder, which Dovecot may not enter.',
      )
      .meta({
        examples: ['/var/spool/postern-feedback'],
        defaultText: 'none: what is said meanwhile is lost',
      }),
    max_connections: z
      .int()
      .min(1)
      .max(1000)
      .default(20)
      .describe('Messages that are taken at once; more are refused, which Dovecot logs.')
      .meta({ title: 'number' }),
    max_size: sizeBetween(1024, 64 * MIB)
      .prefault('500KiB')
      .describe('Larger messages are labelled, and not learned.'),
    max_waiting: sizeBetween(MIB, 1024 ** 4)
      .prefault('256MiB')
      .describe(
        'Size of all messages that wait to be learned, in the folder "lessons" within state.folder. What is beyond it is labelled, and not learned.',
      ),
    junk: folder().default('Junk').describe('The folder that mail is moved into, or out of.'),
    trash: z
      .array(folder())
      .min(1)
      .max(FOLDERS_LIMIT)
      .default(['Trash', 'Deleted Items', 'Deleted Messages'])
      .describe('Folders for what is thrown away: from the junk folder to these says nothing of a message.')
      .meta({ title: 'list of texts' }),
  })
  .prefault({})
  .describe(
    'What users say by moving mail: into the junk folder is spam, out of it is not. SpamAssassin learns it, for the user that [checks.spam] user scans by, and "postern history" shows it. docs/feedback.md says how.',
  );
