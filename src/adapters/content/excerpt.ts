/** Characters shown on either side of what was found. */
const AROUND = 10;
/** The longest run of masks. */
const MASK_LIMIT = 12;

/**
 * What was found with a little around it, so that whoever reads the record sees why, and not what: of a word its first and its last letter are left.
 */
export function maskedExcerpt(text: string, start: number, end: number): string {
  const before = shown(text.slice(Math.max(0, start - AROUND), start)).trimStart();
  const behind = shown(text.slice(end, end + AROUND)).trimEnd();
  return `"${before}${masked(text.slice(start, end))}${behind}"`;
}

function masked(found: string): string {
  const letters = Array.from(found);
  const hidden = '*'.repeat(Math.min(MASK_LIMIT, Math.max(1, letters.length - 2)));
  return letters.length < 4
    ? '*'.repeat(letters.length)
    : `${letters[0] ?? ''}${hidden}${letters.at(-1) ?? ''}`;
}

/** What stands around may itself be a number that nobody should read. Halves of surrogate pairs at its ends are dropped. */
function shown(text: string): string {
  const whole = text.replace(/^[\udc00-\udfff]/, '').replace(/[\ud800-\udbff]$/, '');
  return whole.replaceAll(/\p{N}/gu, '#').replaceAll(/[\p{Cc}"]/gu, ' ');
}
