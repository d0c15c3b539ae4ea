/** A time in a list, to the second: `2026-11-21T09:30:00Z`. `time`: milliseconds since 1970. */
export function timeText(time: number): string {
  return `${new Date(time).toISOString().slice(0, 19)}Z`;
}
