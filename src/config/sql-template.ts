/** What a query or filter of the administrator's may name. */
const PARAMETERS = ['address', 'local', 'domain', 'login'] as const;
type Parameter = (typeof PARAMETERS)[number];

const NAMES = ':address, :local, :domain or :login';

/** A text with places for values between its parts: one place fewer than parts. */
export interface ParsedTemplate {
  readonly parts: readonly string[];
  readonly parameters: readonly Parameter[];
}

export type TemplateReading =
  { readonly ok: true; readonly template: ParsedTemplate } | { readonly ok: false; readonly wrong: string };

/** What a statement consists of, as far as places for values go: quoted text, comments, casts, named parameters, and what must not be there. */
const TOKENS =
  /'[^']*'|"[^"]*"|`[^`]*`|--[^\n]*|\/\*.*?\*\/|::|:([A-Za-z_]\w*)|(\$\w*\$|\$\d|[?;\\#'"`]|\/\*)/gsu;

/**
 * Reads a query with named parameters. Its values are bound to a prepared statement, so a parameter in quotes would be text like any other; that and
 * everything else by which the end of a quotation could be seen differently by the server is refused.
 */
export function readSqlTemplate(text: string): TemplateReading {
  if (!/^\s*(?:select|with)\s/i.test(text))
    return { ok: false, wrong: 'expected a query that begins with SELECT or WITH' };
  const parts: string[] = [];
  const parameters: Parameter[] = [];
  let from = 0;
  for (const match of text.matchAll(TOKENS)) {
    const [token, name, forbidden] = match;
    if (forbidden !== undefined)
      return { ok: false, wrong: `expected one statement with ${NAMES}, in which ${forbidden} has no place` };
    if (name === undefined) {
      if (token.includes('\\')) return { ok: false, wrong: 'expected quoted text without backslashes' };
      const inside = /^['"`]/.test(token) ? /:(?:address|local|domain|login)\b/.exec(token) : null;
      if (inside !== null)
        return { ok: false, wrong: `expected ${inside[0]} without quotes, in which it is text and no value` };
      continue;
    }
    const parameter = PARAMETERS.find((known) => known === name);
    if (parameter === undefined) return { ok: false, wrong: `expected ${NAMES} in place of :${name}` };
    parts.push(text.slice(from, match.index));
    parameters.push(parameter);
    from = match.index + token.length;
  }
  if (parameters.length === 0)
    return { ok: false, wrong: `expected a query that says whom it is about, with ${NAMES}` };
  return { ok: true, template: { parts: [...parts, text.slice(from)], parameters } };
}

/** Reads an LDAP filter (RFC 4515) with named parameters: `(mail=:address)`. */
export function readFilterTemplate(text: string): TemplateReading {
  if (!isBalanced(text))
    return {
      ok: false,
      wrong: 'expected an LDAP filter such as "(mail=:address)", with its parentheses in pairs',
    };
  const parts: string[] = [];
  const parameters: Parameter[] = [];
  let from = 0;
  // In an extensible match, (cn:dn:2.5.13.5:=value), the colons stand before the "=".
  for (const match of text.matchAll(/:([A-Za-z]\w*)(?=[^=():]*\))/g)) {
    const [token, name = ''] = match;
    const parameter = PARAMETERS.find((known) => known === name);
    if (parameter === undefined) return { ok: false, wrong: `expected ${NAMES} in place of :${name}` };
    parts.push(text.slice(from, match.index));
    parameters.push(parameter);
    from = match.index + token.length;
  }
  if (parameters.length === 0)
    return { ok: false, wrong: `expected a filter that says whom it is about, with ${NAMES}` };
  return { ok: true, template: { parts: [...parts, text.slice(from)], parameters } };
}

function isBalanced(filter: string): boolean {
  if (!/^\(.*\)$/s.test(filter)) return false;
  let depth = 0;
  for (const [index, character] of Array.from(filter).entries()) {
    if (character === '(') depth += 1;
    else if (character === ')') depth -= 1;
    if (depth < 0 || (depth === 0 && index < filter.length - 1)) return false;
  }
  return depth === 0;
}
