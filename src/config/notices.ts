import { z } from 'zod';

import { filePath, printable, socketAddress, waitingTime } from './values.ts';
import { duration } from '../checks/options.ts';

const MAILBOX_FORM = 'expected an address such as "postmaster@example.org"';

// What may stand in RCPT TO and in a header field as it is, with nothing to quote.
const MAILBOX = /^[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9.-]{1,253}$/;

function mailbox(): z.ZodString {
  return z.string(MAILBOX_FORM).regex(MAILBOX, MAILBOX_FORM).meta({ title: 'address' });
}

const URL_FORM =
  'expected a URL such as "https://example.org/hook", without user name, password and fragment';

function httpUrl(): z.ZodString {
  return printable(1, 2000)
    .refine((text) => {
      const url = URL.parse(text);
      if (url === null) return false;
      const { protocol, username, password, hash } = url;
      return /^https?:$/.test(protocol) && username === '' && password === '' && hash === '';
    }, URL_FORM)
    .meta({ title: 'URL' });
}

const SMTP_FORM = 'expected "host:port"';
const REPEAT_FORM = 'expected a duration from "1m" to "7d"';

/** `[notices]` */
export const noticesTable = z
  .strictObject({
    mail_to: z
      .array(mailbox())
      .max(20)
      .default([])
      .describe('Who gets notices by mail. Empty: nobody.')
      .meta({ examples: [['postmaster@example.org']], title: 'list of addresses' }),
    mail_from: mailbox()
      .optional()
      .describe(
        'Address in From of these mails. Their envelope sender is empty, so that no bounce comes back.',
      )
      .meta({ examples: ['postern@example.org'], defaultText: 'postern@ and the host name' }),
    smtp: socketAddress()
      .refine((address) => address.kind === 'tcp' && address.port > 0, SMTP_FORM)
      .prefault('127.0.0.1:25')
      .describe('The SMTP server that takes these mails without a login.')
      .meta({ title: 'host and port' }),
    webhook: httpUrl()
      .optional()
      .describe('URL that gets each notice as JSON by POST. Redirects are not followed.')
      .meta({ examples: ['https://alerts.example.org/postern'], defaultText: 'none' }),
    webhook_header_file: filePath()
      .optional()
      .describe(
        'File with one header field for the webhook, such as "Authorization: Bearer …". Only its owner may read it (mode 0600). "credential:NAME": a credential of systemd.',
      )
      .meta({ examples: ['webhook.header'], defaultText: 'none' }),
    timeout: waitingTime()
      .prefault('10s')
      .describe('The longest one attempt may take. What could not be sent is tried again for an hour.'),
    repeat: duration()
      .refine((ms) => ms >= 60_000 && ms <= 7 * 86_400_000, REPEAT_FORM)
      .prefault('1h')
      .describe(
        'The same is not told again for so long, and of one subject no more than five different things.',
      ),
    per_hour: z
      .int()
      .min(1)
      .max(10_000)
      .default(60)
      .describe('The most notices within an hour; more are only logged and counted.')
      .meta({ title: 'number' }),
  })
  .prefault({})
  .describe(
    'Notices for people: a limit that is used up, a mailbox that gets full, an account that behaves unlike itself, logins that are tried out. They always stand in the log.',
  );
