import { z } from 'zod';

import { duration } from '../checks/options.ts';
import { filePath, printable, socketAddress, waitingTime } from './values.ts';

/** `[dovecot]`: whom to ask how full mailboxes are. */

const GRACE = /^(?:(\d{1,3})%|(\d{1,15})(B|KiB|MiB|GiB))$/;
const GRACE_FORM = 'expected a percentage such as "10%", or a size such as "10MiB"';
const UNITS: Readonly<Record<string, number>> = { B: 1, KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3 };

export type QuotaGrace = { readonly octets: number } | { readonly percent: number };

function grace(): z.ZodType<QuotaGrace, string> {
  return z
    .string(GRACE_FORM)
    .transform((text, context): QuotaGrace => {
      const [, percent, amount, unit = 'B'] = GRACE.exec(text) ?? [];
      if (percent !== undefined && Number(percent) <= 100) return { percent: Number(percent) };
      const octets = Number(amount) * (UNITS[unit] ?? 1);
      if (amount !== undefined && Number.isSafeInteger(octets)) return { octets };
      context.addIssue({ code: 'custom', message: GRACE_FORM });
      return z.NEVER;
    })
    .meta({ title: 'percentage or size' });
}

const clone = z.strictObject({
  address: socketAddress()
    .optional()
    .describe('Where Redis listens: "host:port" or "unix:/path".')
    .meta({ examples: ['127.0.0.1:6379'], defaultText: 'none: usage is asked of doveadm' }),
  prefix: printable(0, 100)
    .default('dovecot-quota/')
    .describe('What the keys begin with: prefix= of quota_clone_dict. Dovecot 2.3 takes no colon there.'),
  database: z
    .int()
    .min(0)
    .max(100_000)
    .default(0)
    .describe('Number of the database: db= of quota_clone_dict.')
    .meta({ title: 'number' }),
  password_file: filePath()
    .optional()
    .describe(
      'File with the password of Redis. Only its owner may read it (mode 0600). "credential:NAME": a credential of systemd.',
    )
    .meta({ examples: ['redis.password'], defaultText: 'none' }),
  timeout: waitingTime().prefault('250ms').describe('The longest one answer may take.'),
});

const LONGEST_CACHE = 86_400_000;

export const dovecot = z
  .strictObject({
    doveadm: socketAddress()
      .optional()
      .describe('Where Dovecot\'s doveadm listens for HTTP: "host:port" or "unix:/path".')
      .meta({
        examples: ['127.0.0.1:8080'],
        defaultText: 'none: quotas are looked at by quota_clone and [directory] alone',
      }),
    api_key_file: filePath()
      .optional()
      .describe(
        'File with the value of doveadm_api_key. Only its owner may read it (mode 0600). "credential:NAME": a credential of systemd.',
      )
      .meta({ examples: ['doveadm.key'], defaultText: 'none' }),
    timeout: waitingTime().prefault('2s').describe('The longest doveadm may take for one answer.'),
    max_connections: z
      .int()
      .min(1)
      .max(1000)
      .default(8)
      .describe('Questions that doveadm is asked at once; more wait their turn.')
      .meta({ title: 'number' }),
    limits_cache: duration()
      .refine((ms) => ms <= LONGEST_CACHE, 'expected a duration of at most "1d"')
      .prefault('60s')
      .describe('How long a limit that doveadm told is used before it is asked again.')
      .meta({ title: 'duration' }),
    quota_grace: grace()
      .prefault('10%')
      .describe(
        'Dovecot\'s quota_grace, of which it tells nobody: how far one message may go beyond the limit. Its default is "10%" in Dovecot 2.3, "10MiB" in 2.4 (quota_storage_grace).',
      ),
    username: z
      .enum(['address', 'local-part'])
      .default('address')
      .describe(
        'How Dovecot names its users: by the whole address, or by what stands before the @ (auth_username_format = %n).',
      ),
    quota_clone: clone
      .prefault({})
      .describe("Redis, to which Dovecot's plugin quota_clone writes how full mailboxes are."),
  })
  .prefault({})
  .describe('Dovecot, which is asked how full mailboxes are and may become: for the check "quota".');
