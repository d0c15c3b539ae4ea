import { hash } from 'node:crypto';

import type { Decision, HistoryFilter } from '../ports/store.ts';
import { addressKey } from './sqlite-decisions.ts';

/** What decisions can be looked up by, as texts of four characters each; several things may have the same one, so what is found is looked at. */

/** Characters of a term: one thing in 16 million is taken for another. */
export const TERM_LENGTH = 4;

/** What mail that nothing speaks against has: too much to look up. */
const COMMON_VERDICT = 'accept';
const COMMON_RULE = 'default';

function term(kind: string, text: string): string {
  return hash('sha1', `${kind}${text}`, 'base64url').slice(0, TERM_LENGTH);
}

/** All terms of a decision, one after another. */
export function termsOf(decision: Decision): string {
  const { trace, queueId, sender, recipients, client, verdict, rule } = decision;
  const terms = new Set([term('t', trace), ...addressTerms('s', sender)]);
  if (queueId !== null) terms.add(term('q', queueId));
  if (client !== '') terms.add(term('c', client));
  for (const recipient of recipients) for (const each of addressTerms('r', recipient)) terms.add(each);
  if (verdict !== COMMON_VERDICT) terms.add(term('v', verdict));
  if (rule !== COMMON_RULE) for (const each of ruleTerms(rule)) terms.add(each);
  if (isBackscatter(decision)) terms.add(term('b', ''));
  return [...terms].join('');
}

/** The term that names fewest decisions; empty: all have to be looked at. */
export function lookupOf(filter: HistoryFilter): string {
  const { trace, queueId, recipient, sender, client, backscatter, rule, verdict } = filter;
  if (trace !== undefined) return term('t', trace);
  if (queueId !== undefined) return term('q', queueId);
  if (recipient !== undefined) return addressTerm('r', recipient);
  if (sender !== undefined) return addressTerm('s', sender);
  if (client !== undefined) return term('c', client);
  if (backscatter === true) return term('b', '');
  if (rule !== undefined) {
    const wanted = ruleTerm(rule);
    if (wanted !== '') return wanted;
  }
  return verdict === undefined || verdict === COMMON_VERDICT ? '' : term('v', verdict);
}

/** Whether the filter means this one. */
export function matches(decision: Decision, filter: HistoryFilter): boolean {
  const { trace, queueId, sender, recipient, client, daemon, verdict, rule, since, until } = filter;
  return (
    (trace === undefined || decision.trace === trace) &&
    (queueId === undefined || decision.queueId === queueId) &&
    (sender === undefined || isAddress(decision.sender, sender)) &&
    (recipient === undefined || decision.recipients.some((one) => isAddress(one, recipient))) &&
    (client === undefined || decision.client === client) &&
    (daemon === undefined || decision.daemon === daemon) &&
    (verdict === undefined || decision.verdict === verdict) &&
    (rule === undefined || isRule(decision.rule, rule)) &&
    (filter.backscatter !== true || isBackscatter(decision)) &&
    (since === undefined || decision.time >= since) &&
    (until === undefined || decision.time < until)
  );
}

function addressTerms(kind: string, address: string): readonly string[] {
  const key = addressKey(address);
  const domain = key.slice(0, key.indexOf('@') + 1);
  return domain === '' ? [term(kind, key)] : [term(kind, key), term(kind, domain)];
}

function addressTerm(kind: string, wanted: string): string {
  return term(kind, wanted.startsWith('@') ? `${wanted.slice(1).toLowerCase()}@` : addressKey(wanted));
}

function isAddress(address: string, wanted: string): boolean {
  const key = addressKey(address);
  if (wanted.startsWith('@')) return key.startsWith(`${wanted.slice(1).toLowerCase()}@`);
  return key === addressKey(wanted);
}

/** A rule by its whole name and by that of its check: `spf.fail` and `spf.`. */
function ruleTerms(rule: string): readonly string[] {
  const check = rule.slice(0, rule.indexOf('.') + 1);
  return check === '' ? [term('u', rule)] : [term('u', rule), term('u', check)];
}

/** Empty: a beginning that does not name a check. */
function ruleTerm(wanted: string): string {
  if (!wanted.endsWith('*')) return wanted === COMMON_RULE ? '' : term('u', wanted);
  const check = wanted.slice(0, wanted.indexOf('.') + 1);
  return check === '' ? '' : term('u', check);
}

function isRule(rule: string, wanted: string): boolean {
  return wanted.endsWith('*') ? rule.startsWith(wanted.slice(0, -1)) : rule === wanted;
}

function isBackscatter({ daemon, reply }: Decision): boolean {
  return daemon === 'lmtp-filter' && /^(?:5|452[- ]4\.2\.2)/.test(reply);
}
