import MailComposer from 'nodemailer/lib/mail-composer';
import SMTPConnection from 'nodemailer/lib/smtp-connection';

import { printable } from '../mail/reply.ts';
import type { Notice } from '../ports/notifier.ts';
import { NoticeRefused, type Deliver } from './notice-channel.ts';

export interface MailOptions {
  readonly to: readonly string[];
  /** Address in From. */
  readonly from: string;
  readonly host: string;
  readonly port: number;
  /** Our name, for EHLO and the text. */
  readonly hostname: string;
}

const SUBJECT_LIMIT = 150;
const LINE_LIMIT = 400;

/** Notices by mail, through an SMTP server that takes them without a login: the own Postfix. */
export function mailDelivery(options: MailOptions): Deliver {
  return async (notice, signal) => {
    const message = await composeNotice(notice, options);
    await transfer(message, options, signal);
  };
}

export async function composeNotice(notice: Notice, { to, from, hostname }: MailOptions): Promise<Buffer> {
  return new MailComposer({
    from: { name: 'Postern', address: from },
    to: [...to],
    // A quotation mark would make encoded words of it, which no log and no filter rule can read.
    subject: printable(`[Postern] ${notice.event}: ${notice.text.replaceAll('"', "'")}`, SUBJECT_LIMIT),
    date: new Date(notice.time),
    text: bodyOf(notice, hostname),
    // RFC 3834 §5.1: nobody's autoresponder shall answer.
    headers: { 'Auto-Submitted': 'auto-generated' },
    disableFileAccess: true,
    disableUrlAccess: true,
  })
    .compile()
    .build();
}

function bodyOf({ text, advice, subject, event, time, facts }: Notice, hostname: string): string {
  const rows: [string, string][] = [
    ['host', hostname],
    ['time', new Date(time).toISOString()],
    ['event', event],
    ['about', subject],
    ...Object.entries(facts).map(([name, value]): [string, string] => [
      name,
      value === null ? '-' : String(value),
    ]),
  ];
  const width = Math.max(...rows.map(([name]) => name.length));
  return [
    printable(text, LINE_LIMIT),
    '',
    // Commands are to be copied: they are never cut.
    ...advice.map((line) => `  ${printable(line, line.length)}`),
    ...(advice.length === 0 ? [] : ['']),
    ...rows.map(([name, value]) => `${name.padEnd(width)}  ${printable(value, LINE_LIMIT)}`),
    '',
  ].join('\r\n');
}

/** RFC 5321 §4.5.5: with a null reverse-path, so that no bounce comes back and no limit on senders counts it. */
function transfer(message: Buffer, options: MailOptions, signal: AbortSignal): Promise<void> {
  const { host, port, hostname, to } = options;
  const connection = new SMTPConnection({
    host,
    port,
    name: hostname,
    // Encrypted where the server can, as smtp_tls_security_level = may; within this host there is nothing to hide from.
    ignoreTLS: isLoopback(host),
    opportunisticTLS: true,
    tls: { rejectUnauthorized: false },
    socketCloseTimeout: 0,
    maxResponseSize: 65_536,
  });
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const end = (): void => {
    reject(new Error(`no answer in time from ${host}:${port}`));
    connection.close();
  };
  connection.on('error', (error: Error) => reject(refusalOf(error)));
  connection.once('end', () => reject(new Error(`${host}:${port} closed the connection`)));
  connection.connect((error) => {
    if (error) return reject(refusalOf(error));
    connection.send({ from: false, to: [...to] }, message, (failure, info) => {
      if (failure) reject(refusalOf(failure));
      else if (info !== undefined && info.rejected.length > 0)
        reject(new NoticeRefused(`sent, but not to ${info.rejected.join(', ')}`));
      else resolve();
      connection.quit();
    });
  });
  signal.addEventListener('abort', end, { once: true });
  if (signal.aborted) end();
  return promise.finally(() => {
    signal.removeEventListener('abort', end);
    connection.close();
  });
}

/** RFC 5321 §4.2.1: a 5yz reply is not to be tried again. */
function refusalOf(error: Error): Error {
  const code = 'responseCode' in error ? error.responseCode : undefined;
  return typeof code === 'number' && code >= 500
    ? new NoticeRefused('the mail server refuses the notice', { cause: error })
    : error;
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || host.startsWith('127.');
}
