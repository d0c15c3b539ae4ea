/**
 * For commands that people copy into a shell: what a POSIX shell takes for this text, and nothing else; null: it can't stand there as it is
 * (it was chosen by somebody who sends odd mail, or is not US-ASCII).
 */
export function shellWord(text: string): string | null {
  if (!/^[\x20-\x7e]+$/.test(text)) return null;
  return /^[A-Za-z0-9_.@%+:/][A-Za-z0-9_.@%+:/=-]*$/.test(text)
    ? text
    : `'${text.replaceAll("'", String.raw`'\''`)}'`;
}
