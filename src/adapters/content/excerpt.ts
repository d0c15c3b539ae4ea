/** Characters shown on either side of what was found. */
const AROUND = 10;
/** The longest run of masks. */
const MASK_LIMIT = 12;

/**
 * What was found with a little around it, so that whoever reads the record sees why, and not what: of a word its first and its last letter are left.
 */
export function maskedExcerpt(text: string, start: number, end: number): string {
  const before = whole(text.slice(Math.max(0, start - AROUND), start));
  const behind = whole(text.slice(end, end + AROUND));
  // What stands around may itself be a number that nobody should read.
  return `"${withoutDigits(before)}${masked(text.slice(start, end))}${withoutDigits(behind)}"`;
}

function masked(found: string): string {
  const letters = Array.from(found);
  const hidden = '*'.repeat(Math.min(MASK_LIMIT, Math.max(1, letters.length - 2)));
  return letters.length < 4
    ? '*'.repeat(letters.length)
    : `${letters[0] ?? ''}${hidden}${letters.at(-1) ?? ''}`;
}

function withoutDigits(text: string): string {
  return text.replaceAll(/\p{N}/gu, '#').replaceAll(/[\p{Cc}"]/gu, ' ');
}

/** Without halves of surrogate pairs at its ends. */
function whole(text: string): string {
  return text.replace(/^[\udc00-\udfff]/, '').replace(/[\ud800-\udbff]$/, '');
}
