import { isUtf8 } from 'node:buffer';

import type { Decision } from '../ports/store.ts';
import type { Finding, Outcome } from '../verdict/finding.ts';

/** How decisions are shown to people: lines of plain text that do nothing to a terminal, whatever a remote party sent. */

/** Recipients named in one line. */
const RECIPIENTS_SHOWN = 3;
const TEXT_LIMIT = 300;

/** One decision in two to four lines, with `facts` everything it rests on. */
export function describeDecision(decision: Decision, facts: boolean): string[] {
  const { daemon, stage, verdict, rule, score, tagged } = decision;
  const lines = [
    words(
      new Date(decision.time).toISOString(),
      `${daemon} ${stage}`,
      `${verdict}${tagged ? ' (marked as spam)' : ''}`,
      `by ${shown(rule)}`,
      score === null ? '' : `score ${score}`,
      `trace ${shown(decision.trace)}`,
      decision.queueId === null ? '' : `queue id ${shown(decision.queueId)}`,
      decision.host === undefined ? '' : `at ${shown(decision.host)}`,
    ),
    `  ${path(decision.sender)} -> ${recipients(decision.recipients)}${client(decision)}`,
  ];
  if (decision.why !== '') lines.push(`  why: ${shown(decision.why)}`);
  lines.push(...describeLabels([decision]));
  if (facts) lines.push(...describeFacts(decision));
  // Dovecot's words: the verdict does not say them.
  else if (daemon === 'lmtp-filter' && /^[45]/.test(decision.reply))
    lines.push(`  answer: ${shown(decision.reply)}`);
  return lines;
}

/** The way of one message through the daemons. `decisions` share a trace, in any order. */
export function describeJourney(decisions: readonly Decision[]): string[] {
  const inOrder = decisions.toSorted((one, other) => one.time - other.time);
  const [first] = inOrder;
  if (first === undefined) return [];
  const lines = [
    words(`trace ${shown(first.trace)}`, first.direction === 'out' ? 'outgoing' : 'incoming'),
    ...known('queue id', inOrder, (one) => one.queueId),
    ...known('client', inOrder, (one) => one.client),
    ...known('helo', inOrder, (one) => one.helo),
    ...known('login', inOrder, (one) => one.login),
    ...known('from', inOrder, (one) => path(one.sender)),
    ...known('message id', inOrder, (one) => one.messageId),
    ...known('size', inOrder, (one) => (one.size === null ? null : `${one.size} octets`)),
    ...describeLabels(inOrder),
  ];
  for (const decision of inOrder) {
    const { daemon, stage, verdict, rule, score, tagged, elapsed } = decision;
    lines.push(
      '',
      words(
        new Date(decision.time).toISOString(),
        `${daemon} ${stage}`,
        `${verdict}${tagged ? ' (marked as spam)' : ''}`,
        `by ${shown(rule)}`,
        score === null ? '' : `score ${score}`,
        `after ${elapsed.toFixed(0)} ms`,
        decision.host === undefined ? '' : `at ${shown(decision.host)}`,
      ),
      `  to: ${recipients(decision.recipients)}`,
    );
    if (decision.why !== '') lines.push(`  why: ${shown(decision.why)}`);
    lines.push(...describeFacts(decision));
  }
  return lines;
}

/**
 * Text that came from outside, as it can be shown on a terminal. Octets that are UTF-8 are read as such; what controls, reorders or hides
 * becomes its code in braces; and the whole is cut.
 */
export function shown(text: string, limit = TEXT_LIMIT): string {
  const bounded = text.length > limit ? `${text.slice(0, limit)}...` : text;
  // The categories C (control, format, surrogate, private, unassigned) and Z (line and paragraph separators, odd spaces) but the space.
  return decoded(bounded).replaceAll(/(?! )[\p{C}\p{Z}]/gu, (character) => {
    return `{${(character.codePointAt(0) ?? 0).toString(16).padStart(2, '0')}}`;
  });
}

/** Strings that come from the wire hold one octet per character. */
function decoded(text: string): string {
  // oxlint-disable-next-line no-control-regex -- the range of octets, on purpose
  if (!/[\u0080-\u00ff]/.test(text) || /[^\u0000-\u00ff]/.test(text)) return text;
  const octets = Buffer.from(text, 'latin1');
  return isUtf8(octets) ? octets.toString('utf8') : text;
}

function describeFacts(decision: Decision): string[] {
  return [
    ...decision.outcomes.flatMap((outcome) => describeOutcome(outcome, decision.recipients)),
    ...decision.shadow.map(({ rule, kind }) => `  shadow: ${shown(rule)} would have been ${kind}`),
    ...(decision.reply === '' ? [] : [`  answer: ${shown(decision.reply)}`]),
  ];
}

/** What users said of the message; each once, also when its decisions all tell of it. */
function describeLabels(decisions: readonly Decision[]): string[] {
  const lines = new Set<string>();
  for (const { labels = [] } of decisions) {
    for (const { user, label, time } of labels) {
      const whom = user === '' ? 'the operator' : shown(user);
      lines.add(`  label: ${label}, says ${whom} (${new Date(time).toISOString()})`);
    }
  }
  return [...lines];
}

function describeOutcome(outcome: Outcome, to: readonly string[]): string[] {
  const name = `  ${shown(outcome.check)}`;
  const took = `(${outcome.elapsed.toFixed(0)} ms)`;
  switch (outcome.kind) {
    case 'unavailable':
      return [`${name}: unavailable, ${outcome.reason}: ${shown(outcome.detail)} ${took}`];
    case 'found':
      if (outcome.findings.length === 0) return [`${name}: nothing found ${took}`];
      return outcome.findings.map((finding) => `${name}: ${describeFinding(finding, to)} ${took}`);
  }
}

function describeFinding(finding: Finding, to: readonly string[]): string {
  const points = finding.score === undefined ? '' : ` ${finding.score} points`;
  const whom = finding.recipient === undefined ? '' : ` for ${shown(to[finding.recipient] ?? 'a recipient')}`;
  return `${shown(finding.code)}${points}${whom}, ${shown(finding.detail)}`;
}

/** A fact of the message that each daemon may know, or not yet; different ones are all named. */
function known(
  name: string,
  decisions: readonly Decision[],
  of: (decision: Decision) => string | null,
): string[] {
  const values = new Set(decisions.map(of));
  values.delete(null);
  values.delete('');
  if (values.size === 0) return [];
  return [`  ${name}: ${Array.from(values, (value) => shown(value ?? '')).join(', ')}`];
}

function client({ client: address, helo, login }: Decision): string {
  const from = address === '' ? '' : `, client ${shown(address)}`;
  const greeting = helo === null ? '' : `, helo ${shown(helo)}`;
  return `${from}${greeting}${login === null ? '' : `, login ${shown(login)}`}`;
}

function recipients(to: readonly string[]): string {
  if (to.length === 0) return '(no recipients)';
  const named = to.slice(0, RECIPIENTS_SHOWN).map(path).join(', ');
  return to.length > RECIPIENTS_SHOWN ? `${named} and ${to.length - RECIPIENTS_SHOWN} more` : named;
}

function path(mailbox: string): string {
  return `<${shown(mailbox)}>`;
}

function words(...parts: readonly string[]): string {
  return parts.filter((part) => part !== '').join('  ');
}
