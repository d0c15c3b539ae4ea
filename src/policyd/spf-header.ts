import { authResultsField, type AuthResult } from '../mail/auth-results.ts';
import { pathText } from '../mail/address.ts';
import type { MailFacts } from '../checks/check.ts';
import type { Outcome } from '../verdict/finding.ts';
import { HEADER_LIMIT } from './wire.ts';

/** Which header field tells of SPF; `policyd.spf_header` of the configuration. */
export type SpfHeaderStyle = 'received-spf' | 'authentication-results' | 'none';

export interface SpfHeaderNames {
  readonly style: SpfHeaderStyle;
  readonly authservId: string;
  readonly hostname: string;
}

/** The longest mailbox or host name that is shown, escapes included; with these and the host name a line stays below HEADER_LIMIT. */
const VALUE_LIMIT = 260;
/** An IPv6 address in its longest form has 45 characters. */
const ADDRESS_LIMIT = 50;
/** RFC 5322 §3.2.3 dot-atom. */
const DOT_ATOM = /^[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~]+(?:\.[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~]+)*$/;

/** The header field for a message that goes on, on one line (`Name: value`); null when SPF has said nothing. */
export function spfHeader(
  names: SpfHeaderNames,
  facts: MailFacts,
  outcomes: readonly Outcome[],
): string | null {
  if (names.style === 'none') return null;
  const results = spfResults(outcomes);
  const main = results[0];
  if (main === undefined) return null;
  switch (names.style) {
    case 'received-spf':
      return receivedSpf(main, names.hostname, facts);
    case 'authentication-results':
      return authenticationResults(names.authservId, main, results);
  }
}

/** The results of SPF, that of MAIL FROM first. */
function spfResults(outcomes: readonly Outcome[]): readonly AuthResult[] {
  const results: AuthResult[] = [];
  for (const outcome of outcomes) {
    if (outcome.kind !== 'found') continue;
    for (const { auth } of outcome.findings) {
      if (auth?.method !== 'spf') continue;
      if (isMailFrom(auth)) results.unshift(auth);
      else results.push(auth);
    }
  }
  return results;
}

function isMailFrom(auth: AuthResult): boolean {
  return auth.properties.some(([name]) => name === 'smtp.mailfrom');
}

/** RFC 7208 §9.1. Without a comment, which would be one more place for remote text; the keys say what is needed to check again. */
function receivedSpf(auth: AuthResult, hostname: string, { client, sender }: MailFacts): string {
  const pairs = [
    `receiver=${pairValue(hostname, VALUE_LIMIT)}`,
    `identity=${isMailFrom(auth) ? 'mailfrom' : 'helo'}`,
    `client-ip=${pairValue(client.address, ADDRESS_LIMIT)}`,
    `envelope-from=${quotedString(sender.kind === 'null' ? '<>' : pathText(sender), VALUE_LIMIT)}`,
  ];
  if (client.helo !== null) pairs.push(`helo=${pairValue(client.helo, VALUE_LIMIT)}`);
  return `Received-SPF: ${auth.result} ${pairs.join('; ')}`;
}

/** RFC 8601 §2.2; comments, then all but the main result are left out when they would make the line too long. */
function authenticationResults(
  authservId: string,
  main: AuthResult,
  results: readonly AuthResult[],
): string | null {
  const bare = results.map(({ method, result, properties }) => ({ method, result, properties }));
  const mainOnly = [{ method: main.method, result: main.result, properties: main.properties }];
  for (const list of [results, bare, mainOnly]) {
    const { name, value } = authResultsField(authservId, list);
    const line = `${name}: ${value.trim().replaceAll(/\r\n[ \t]/g, ' ')}`;
    if (line.length <= HEADER_LIMIT) return line;
  }
  return null;
}

/** RFC 7208 §9.1: dot-atom or quoted-string. */
function pairValue(text: string, limit: number): string {
  return text.length <= limit && DOT_ATOM.test(text) ? text : quotedString(text, limit);
}

/** RFC 5322 §3.2.4, with at most `limit` characters between the quotes; what is not printable US-ASCII becomes `?`. */
function quotedString(text: string, limit: number): string {
  let inner = '';
  for (const character of text) {
    const shown = character >= ' ' && character <= '~' ? character : '?';
    const next = shown === '"' || shown === '\\' ? `\\${shown}` : shown;
    if (inner.length + next.length > limit - 3) return `"${inner}..."`;
    inner += next;
  }
  return `"${inner}"`;
}
