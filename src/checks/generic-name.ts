import type { IpAddress } from './networks.ts';

/** As many octets of an IPv4 address, one after the other, give a name away. Two occur in names of mail servers that are numbered by their address. */
const OCTETS_LEAST = 3;

/** Fewer digits than that, without separators, may be any number. */
const PLAIN_LEAST = 8;

/** Hexadecimal digits of the lower half of an IPv6 address. */
const INTERFACE_DIGITS = 16;

/**
 * Whether a host name was made from the address, as providers name the lines of their customers: `192-0-2-20.pool.example`, `20.2.0.192.example`,
 * `host192000002020.example`, `c0000214.example`, `2001-db8--14.example`. No word of any language is looked for.
 */
export function isMadeFromAddress(name: string, address: IpAddress): boolean {
  const text = name.toLowerCase();
  return address.length === 2 ? hasIpv4(text, octetsOf(address)) : hasIpv6(text, address);
}

function octetsOf(address: IpAddress): readonly number[] {
  return address.flatMap((group) => [group >> 8, group & 0xff]);
}

function hasIpv4(name: string, octets: readonly number[]): boolean {
  const reversed = octets.toReversed();
  const runs: readonly string[] = name.match(/\d+/g) ?? [];
  const numbers = runs.map((digits) => (digits.length <= 3 ? Number(digits) : -1));
  if (hasRun(numbers, octets) || hasRun(numbers, reversed)) return true;
  // Without separators the digits have to be all of their run, or longer numbers would hold them by chance.
  const plain = octets.join('');
  const forms = [padded(octets), padded(reversed), ...(plain.length >= PLAIN_LEAST ? [plain] : [])];
  if (runs.some((digits) => forms.includes(digits))) return true;
  const hexRuns: readonly string[] = name.match(/[\da-f]+/g) ?? [];
  return hexRuns.includes(octets.map((octet) => octet.toString(16).padStart(2, '0')).join(''));
}

function padded(octets: readonly number[]): string {
  return octets.map((octet) => String(octet).padStart(3, '0')).join('');
}

/** Whether three octets that follow each other do so among the numbers of the name. */
function hasRun(numbers: readonly number[], octets: readonly number[]): boolean {
  for (let start = 0; start + OCTETS_LEAST <= numbers.length; start++) {
    for (let first = 0; first + OCTETS_LEAST <= octets.length; first++) {
      let same = 0;
      while (same < OCTETS_LEAST && numbers[start + same] === octets[first + same]) same++;
      if (same === OCTETS_LEAST) return true;
    }
  }
  return false;
}

function hasIpv6(name: string, address: IpAddress): boolean {
  const digits = address.map((group) => group.toString(16).padStart(4, '0')).join('');
  const bare = name.replaceAll(/[^\da-z]/g, '');
  for (const form of [digits, reverse(digits)]) {
    if (bare.includes(form)) return true;
  }
  const low = digits.slice(-INTERFACE_DIGITS);
  // "::1" and its like say little: mail servers have such addresses, and other digits end in zeros too.
  const telling = /^0{8}/.test(low) ? [] : [low, reverse(low)];
  if (telling.some((form) => bare.includes(form))) return true;
  const groups = address.map((group) => group.toString(16));
  const dashed = groups.join('-');
  return name.includes(dashed) || compressions(groups).some((form) => name.includes(form));
}

/** `2001-db8--14`: the ways to leave a run of zero groups out. */
function compressions(groups: readonly string[]): string[] {
  const forms: string[] = [];
  for (let start = 0; start < groups.length; start++) {
    let end = start;
    while (end < groups.length && groups[end] === '0') end++;
    if (end - start < 2) continue;
    const form = `${groups.slice(0, start).join('-')}--${groups.slice(end).join('-')}`;
    // What is left of "::1" is in many names.
    if (form.replaceAll('-', '').length >= PLAIN_LEAST) forms.push(form);
    start = end;
  }
  return forms;
}

function reverse(text: string): string {
  return Array.from(text).toReversed().join('');
}
