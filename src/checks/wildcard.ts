/**
 * Patterns in which `*` stands for any run of characters, none included. No regular expressions: whatever an operator writes and a client
 * says, a match takes one pass over the text.
 */
export interface Wildcard {
  readonly pieces: readonly string[];
}

export function parseWildcard(pattern: string): Wildcard {
  return { pieces: pattern.split('*') };
}

/** Both in lower case. */
export function matchesWildcard({ pieces }: Wildcard, text: string): boolean {
  const first = pieces[0] ?? '';
  const last = pieces.at(-1) ?? '';
  if (pieces.length === 1) return text === first;
  if (text.length < first.length + last.length || !text.startsWith(first) || !text.endsWith(last))
    return false;
  const end = text.length - last.length;
  let from = first.length;
  // The leftmost place of each piece leaves the most room for the next ones, so there is nothing to try twice.
  for (let index = 1; index < pieces.length - 1; index++) {
    const piece = pieces[index] ?? '';
    const at = text.indexOf(piece, from);
    if (at === -1 || at + piece.length > end) return false;
    from = at + piece.length;
  }
  return true;
}
