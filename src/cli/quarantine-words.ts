import type { HeldMail } from '../adapters/postfix-queue.ts';
import type { QuarantineEntry } from '../adapters/quarantine-folder.ts';
import { logText, printable } from '../mail/reply.ts';
import { timeText } from './time-text.ts';

/** A quarantined message, wherever it is. */
export type Listed =
  | { readonly kind: 'folder'; readonly entry: QuarantineEntry }
  | { readonly kind: 'hold'; readonly mail: HeldMail };

const ADDRESS_LIMIT = 320;
const TEXT_LIMIT = 300;
/** Recipients on one line of the list, and in `show`. */
const LISTED_RECIPIENTS = 3;
const SHOWN_RECIPIENTS = 100;
const HEADER_LINES = 200;
const BODY_LINES = 40;
const LINE_LIMIT = 200;

/** One line for the list. All of a message that is on it was written by somebody else: nothing of it reaches the terminal but printable ASCII. */
export function listLine(listed: Listed): string {
  if (listed.kind === 'hold') {
    const { queueId, time, size, sender, recipients } = listed.mail;
    return line(queueId, time, size, 'on hold in Postfix', sender, recipients);
  }
  const { id, envelope, problem } = listed.entry;
  if (envelope === null) return `${id}  can't be read: ${printable(problem ?? '', TEXT_LIMIT)}`;
  const { time, size, rule, sender, recipients } = envelope;
  return line(id, time, size, rule, sender, recipients);
}

/** The same as an object; recipients without end. JSON leaves the C1 controls as they are, so they are taken out. */
export function jsonOf(listed: Listed): Record<string, unknown> {
  if (listed.kind === 'hold') {
    const { queueId, time, size, sender, recipients } = listed.mail;
    return {
      id: queueId,
      where: 'postfix',
      time: new Date(time).toISOString(),
      size,
      sender: logText(sender),
      recipients: recipients.map(logText),
    };
  }
  const { id, envelope, problem } = listed.entry;
  if (envelope === null) return { id, where: 'folder', problem: logText(problem) };
  const { time, size, sender, recipients, rule, why, score, subject, from, trace, queueId, client } =
    envelope;
  return {
    id,
    where: 'folder',
    time: new Date(time).toISOString(),
    size,
    sender: logText(sender),
    recipients: recipients.map(logText),
    rule: logText(rule),
    why: logText(why),
    score,
    from: logText(from),
    subject: logText(subject),
    client: logText(client),
    trace: logText(trace),
    queueId: logText(queueId),
  };
}

export function describeHeld({ queueId, time, size, sender, recipients }: HeldMail): string[] {
  return [
    row('id', `${queueId}, on hold in Postfix`),
    row('time', new Date(time).toISOString()),
    row('size', `${size} octets`),
    row('sender', path(sender)),
    ...to(recipients),
  ];
}

export function describeEntry({ id, envelope }: QuarantineEntry): string[] {
  if (envelope === null) return [row('id', id)];
  const { daemon, time, size, sender, recipients, rule, why, score, client, helo, login, trace, queueId } =
    envelope;
  return [
    row('id', id),
    row('time', new Date(time).toISOString()),
    row('size', `${size} octets`),
    row('rule', `${printable(rule, TEXT_LIMIT)}, by ${daemon}`),
    row('why', printable(why, TEXT_LIMIT)),
    ...(score === null ? [] : [row('score', String(score))]),
    row('client', printable(`${client}${helo === null ? '' : `, HELO ${helo}`}`, TEXT_LIMIT)),
    ...(login === null ? [] : [row('login', printable(login, ADDRESS_LIMIT))]),
    row('trace', printable(`${trace}${queueId === null ? '' : `, queue id ${queueId}`}`, TEXT_LIMIT)),
    row('sender', path(sender)),
    ...to(recipients),
  ];
}

/** Header section and the beginning of the body, a line at a time. @param text latin1 */
export function shownMessage(text: string): string[] {
  const end = text.search(/\r?\n\r?\n/);
  const head = end === -1 ? text : text.slice(0, end);
  const body = end === -1 ? '' : text.slice(end).replace(/^\r?\n\r?\n/, '');
  return [...firstLines(head, HEADER_LINES), '', ...firstLines(body, BODY_LINES)];
}

function firstLines(text: string, most: number): string[] {
  const lines = text.split(/\r?\n/, most + 1);
  const shown = lines.slice(0, most).map((one) => printable(one.replaceAll('\t', ' '), LINE_LIMIT));
  return lines.length > most ? [...shown, '...'] : shown;
}

function line(
  id: string,
  time: number,
  size: number,
  why: string,
  sender: string,
  recipients: readonly string[],
): string {
  const more = recipients.length - LISTED_RECIPIENTS;
  const names = recipients.slice(0, LISTED_RECIPIENTS).map(path).join(' ');
  const when = timeText(time);
  const rest = more > 0 ? ` and ${more} more` : '';
  return `${id}  ${when}  ${String(size).padStart(9)}  ${printable(why, TEXT_LIMIT)}  ${path(sender)} -> ${names}${rest}`;
}

function to(recipients: readonly string[]): string[] {
  const more = recipients.length - SHOWN_RECIPIENTS;
  return [
    ...recipients.slice(0, SHOWN_RECIPIENTS).map((recipient) => row('recipient', path(recipient))),
    ...(more > 0 ? [row('', `and ${more} more`)] : []),
  ];
}

function path(address: string): string {
  return `<${printable(address, ADDRESS_LIMIT)}>`;
}

function row(what: string, value: string): string {
  return `${what.padEnd(10)} ${value}`;
}
