const MOST = 5;

/** What went wrong, and why, and why that: one line for people. */
export function causes(error: unknown): string {
  const texts: string[] = [];
  for (let link = error; link instanceof Error && texts.length < MOST; link = link.cause) {
    texts.push(link.message);
  }
  return texts.join(': ');
}
