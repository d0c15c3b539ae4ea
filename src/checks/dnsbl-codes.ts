/** The answers of a list that mean the same, `127.0.0.2-11`: each octet a number, a range, `*`, or `&N` (the bits of N are set). */
export type CodePattern = readonly OctetPattern[];

type OctetPattern =
  | { readonly kind: 'range'; readonly low: number; readonly high: number }
  | { readonly kind: 'bits'; readonly bits: number };

/** A pattern and what it weighs; null: as much as its list. */
export interface WeighedCode {
  readonly pattern: CodePattern;
  readonly weight: number | null;
}

export const WEIGHT_LIMIT = 1000;

const WEIGHED = /^(\S+)(?: +(-?\d{1,4}(?:\.\d{1,3})?))?$/;

/** `"127.0.0.2-11"`, `"127.0.0.4 2.5"`; null when it is none. */
export function parseWeighedCode(text: string): WeighedCode | null {
  const [, code = '', points] = WEIGHED.exec(text) ?? [];
  const pattern = parseCode(code);
  const weight = points === undefined ? null : Number(points);
  if (pattern === null || (weight !== null && Math.abs(weight) > WEIGHT_LIMIT)) return null;
  return { pattern, weight };
}

/** `"127.255.255.*"`; null when it is none. RFC 5782 §2.3: all of them are in 127.0.0.0/8. */
export function parseCode(text: string): CodePattern | null {
  const parts = text.split('.');
  if (parts.length !== 4 || parts[0] !== '127') return null;
  const octets: OctetPattern[] = [];
  for (const part of parts) {
    const octet = parseOctet(part);
    if (octet === null) return null;
    octets.push(octet);
  }
  return octets;
}

function parseOctet(text: string): OctetPattern | null {
  if (text === '*') return { kind: 'range', low: 0, high: 255 };
  const [, sign = '', first = '', last = first] = /^(&?)(\d{1,3})(?:-(\d{1,3}))?$/.exec(text) ?? [];
  const [low, high] = [Number(first), Number(last)];
  if (first === '' || low > high || high > 255) return null;
  if (sign === '') return { kind: 'range', low, high };
  return text.includes('-') || low === 0 ? null : { kind: 'bits', bits: low };
}

/** `octets` of an IPv4 address. */
export function matchesCode(pattern: CodePattern, octets: readonly number[]): boolean {
  return pattern.every((part, index) => {
    const octet = octets[index] ?? -1;
    switch (part.kind) {
      case 'range':
        return octet >= part.low && octet <= part.high;
      case 'bits':
        return (octet & part.bits) === part.bits;
    }
  });
}
