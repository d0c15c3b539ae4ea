import { printable } from './reply.ts';
import { trimBlanks, type HeaderField } from './header.ts';

/** One `resinfo` of an Authentication-Results field. RFC 8601 §2.2. */
export interface AuthResult {
  readonly method: 'spf' | 'dkim' | 'dmarc' | 'arc' | 'auth';
  /** A word of RFC 8601 §2.7: pass, fail, softfail, neutral, none, policy, temperror, permerror. */
  readonly result: string;
  readonly comment?: string;
  /** `ptype.property` and its value: `['smtp.mailfrom', 'a@b']`. */
  readonly properties: readonly (readonly [string, string])[];
}

const VALUE_LIMIT = 320;
const FIELD_NAME = 'Authentication-Results';

/** Builds the field; values are quoted where RFC 8601's grammar wants it, so that remote text cannot add a result of its own. */
export function authResultsField(authservId: string, results: readonly AuthResult[]): HeaderField {
  const parts = results.map((result) => {
    let text = `${result.method}=${result.result}`;
    if (result.comment !== undefined && result.comment !== '') text += ` (${comment(result.comment)})`;
    for (const [name, value] of result.properties) text += ` ${name}=${pvalue(value)}`;
    return text;
  });
  return {
    name: FIELD_NAME,
    value: ` ${authservId};\r\n\t${parts.length === 0 ? 'none' : parts.join(';\r\n\t')}`,
  };
}

/** The authserv-id of an Authentication-Results value, in lower case; null when it can't be read. RFC 8601 §2.2, §2.5, §5. */
export function authservIdOf(value: string): string | null {
  const text = trimBlanks(stripComments(value.replaceAll(/\r?\n/g, ' ')));
  const quoted = /^"((?:[^"\\]|\\.)*)"/s.exec(text);
  if (quoted) return (quoted[1] ?? '').replaceAll(/\\(.)/gs, '$1').toLowerCase();
  const token = /^[^ \t;=]+/.exec(text);
  return token === null ? null : token[0].toLowerCase();
}

/**
 * Whether an Authentication-Results value passes for one of those that bear one of these names: by the grammar, or to a reader that is less
 * strict than the grammar. What can't be read at all counts too. RFC 8601 §5 has these removed on entry, and lets a site remove more.
 */
export function claimsAuthservId(value: string, authservIds: readonly string[]): boolean {
  const id = authservIdOf(value);
  if (id === null) return true;
  const end = value.indexOf(';');
  const head = ` ${(end === -1 ? value : value.slice(0, end)).toLowerCase()} `;
  return authservIds.some((own) => {
    const ours = own.toLowerCase();
    return id === ours || names(head, ours);
  });
}

/** Whether `ours` stands in the text as a name of its own. */
function names(head: string, ours: string): boolean {
  for (let at = head.indexOf(ours); at !== -1; at = head.indexOf(ours, at + 1)) {
    // `mx.example.org`, `mx.example.org.`, `mx.example.org/1`, `"mx.example.org` but not `amx.example.org` or `mx.example.org.uk`.
    const rest = head.slice(at + ours.length, at + ours.length + 2);
    if (!isNameChar(head[at - 1]) && (!isNameChar(rest[0]) || (rest[0] === '.' && !isNameChar(rest[1]))))
      return true;
  }
  return false;
}

function isNameChar(char: string | undefined): boolean {
  return char !== undefined && /[a-z0-9._-]/.test(char);
}

/** RFC 5322 §3.2.2 comments nest; an unclosed one swallows the rest. Linear in the length of the text. */
function stripComments(text: string): string {
  let depth = 0;
  let quoted = false;
  let out = '';
  for (let i = 0; i < text.length; i++) {
    const c = text[i];
    if (c === '\\') {
      if (depth === 0) out += text.slice(i, i + 2);
      i++;
    } else if (depth === 0 && c === '"') {
      quoted = !quoted;
      out += c;
    } else if (!quoted && c === '(') {
      depth++;
    } else if (!quoted && c === ')' && depth > 0) {
      depth--;
      out += ' ';
    } else if (depth === 0) {
      out += c;
    }
  }
  return out;
}

function comment(text: string): string {
  return printable(text, VALUE_LIMIT).replaceAll(/[()\\]/g, '?');
}

function pvalue(value: string): string {
  const safe = printable(value, VALUE_LIMIT);
  // RFC 8601 §2.2: pvalue is a value (RFC 2045 token or quoted-string) or [[local-part] "@"] domain-name.
  if (/^(?:[A-Za-z0-9!#$%&'*+\-.^_`{|}~]*@)?[A-Za-z0-9!#$%&'*+\-.^_`{|}~]+$/.test(safe)) return safe;
  return `"${safe.replaceAll(/["\\]/g, '\\$&')}"`;
}
