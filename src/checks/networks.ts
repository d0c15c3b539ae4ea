import ipaddr from 'ipaddr.js';
import { z } from 'zod';

/** A set of IP networks. */
export interface NetworkSet {
  has(address: string): boolean;
  readonly text: readonly string[];
}

/** An address as 16-bit groups: two for IPv4, eight for IPv6. */
export type IpAddress = readonly number[];

export interface Network {
  readonly address: IpAddress;
  readonly bits: number;
}

/** The longest text of an address: IPv6 with IPv4 at its end, and a zone. */
const TEXT_LIMIT = 64;

const DECIMAL = /^[\d.]{7,15}$/;

/** Four decimal numbers, or IPv6: the other forms that inet_aton(3) takes ("10", "127.1", "010.0.0.1") are mistakes here. */
export function isIpAddress(text: string): boolean {
  // ipaddr.js takes 25 µs to find that a host name is no address.
  if (DECIMAL.test(text)) return ipaddr.IPv4.isValidFourPartDecimal(text);
  return text.length <= TEXT_LIMIT && text.includes(':') && ipaddr.IPv6.isValid(text);
}

/** null when the text is no address. IPv6 that stands for IPv4 (`::ffff:192.0.2.1`) is IPv4. */
export function parseIp(text: string): IpAddress | null {
  if (!isIpAddress(text)) return null;
  const numbers = text.includes(':') ? ipv6(text) : text.split('.').map(Number);
  if (numbers.length === 8) return numbers;
  const [a = 0, b = 0, c = 0, d = 0] = numbers;
  return [(a << 8) | b, (c << 8) | d];
}

/** Eight groups, or the four octets of an IPv4 address within. */
function ipv6(text: string): readonly number[] {
  const address = ipaddr.process(text);
  return address instanceof ipaddr.IPv6 ? address.parts : address.octets;
}

/** `"192.0.2.0/24"`, `"2001:db8::/32"`, or one address. Bits beyond the prefix do not matter. */
export function parseNetwork(text: string): Network | null {
  const [host = '', prefix, ...rest] = text.split('/');
  if (rest.length > 0) return null;
  const address = parseIp(host);
  if (address === null) return null;
  const longest = address.length * 16;
  if (prefix === undefined) return { address, bits: longest };
  if (!/^\d{1,3}$/.test(prefix)) return null;
  // An IPv4-mapped network counts its 96 leading bits.
  const mapped = address.length === 2 && host.includes(':');
  const bits = Number(prefix) - (mapped ? 96 : 0);
  return bits >= 0 && bits <= longest ? { address, bits } : null;
}

/** The network that an address lies in, `192.0.2.0/24` or `2001:db8::/64`; null when the text is no address. */
export function networkOf(
  text: string,
  bits: { readonly ipv4: number; readonly ipv6: number },
): string | null {
  const address = parseIp(text);
  if (address === null) return null;
  if (address.length === 2) {
    const [high, low] = masked(address, bits.ipv4);
    return `${octetPair(high ?? 0)}.${octetPair(low ?? 0)}/${bits.ipv4}`;
  }
  return `${new ipaddr.IPv6([...masked(address, bits.ipv6)]).toString()}/${bits.ipv6}`;
}

/** Whether mail can be sent there from anywhere: neither private, loopback, link-local, multicast nor reserved. */
export function isPublicAddress(text: string): boolean {
  return isIpAddress(text) && ipaddr.process(text).range() === 'unicast';
}

/** Values of networks. A look-up costs a few comparisons for each prefix length there is, however many networks there are. */
export class NetworkTable<V> {
  /** By count of groups and prefix length, the longest prefix first. */
  readonly #levels = new Map<number, { bits: number; values: Map<string, V> }[]>();

  get({ address, bits }: Network): V | undefined {
    const level = this.#levels.get(address.length)?.find((candidate) => candidate.bits === bits);
    return level?.values.get(keyOf(address, bits));
  }

  set({ address, bits }: Network, value: V): void {
    let levels = this.#levels.get(address.length);
    if (levels === undefined) this.#levels.set(address.length, (levels = []));
    let level = levels.find((candidate) => candidate.bits === bits);
    if (level === undefined) {
      levels.push((level = { bits, values: new Map<string, V>() }));
      levels.sort((a, b) => b.bits - a.bits);
    }
    level.values.set(keyOf(address, bits), value);
  }

  /** Values of all networks that the address lies in, the smallest network first. */
  *matches(address: IpAddress): Generator<V, void> {
    for (const { bits, values } of this.#levels.get(address.length) ?? []) {
      const value = values.get(keyOf(address, bits));
      if (value !== undefined) yield value;
    }
  }

  has(address: IpAddress): boolean {
    const levels = this.#levels.get(address.length);
    return levels?.some(({ bits, values }) => values.has(keyOf(address, bits))) ?? false;
  }
}

const NETWORK_FORM = 'expected an IP address or a network such as "192.0.2.0/24" or "2001:db8::/32"';

/** A list of addresses and CIDR networks, IPv4 and IPv6. */
export function networkSet(): z.ZodType<NetworkSet, string[]> {
  return z
    .array(z.string(NETWORK_FORM), 'expected a list of networks such as ["127.0.0.0/8", "2001:db8::/32"]')
    .transform((list, context): NetworkSet => {
      const table = new NetworkTable<true>();
      for (const [index, text] of list.entries()) {
        const network = parseNetwork(text);
        if (network === null) context.addIssue({ code: 'custom', message: NETWORK_FORM, path: [index] });
        else table.set(network, true);
      }
      const has = (text: string): boolean => {
        const address = parseIp(text);
        return address !== null && table.has(address);
      };
      return { text: list, has };
    })
    .meta({ title: 'list of networks' });
}

function masked(address: IpAddress, bits: number): IpAddress {
  return address.map((group, index) => group & groupMask(bits - index * 16));
}

function keyOf(address: IpAddress, bits: number): string {
  let key = '';
  for (let index = 0; index * 16 < bits; index++) {
    key += String.fromCharCode((address[index] ?? 0) & groupMask(bits - index * 16));
  }
  return key;
}

/** How much of a group lies within a prefix of which `bits` are left. */
function groupMask(bits: number): number {
  if (bits <= 0) return 0;
  return bits >= 16 ? 0xffff : (0xffff << (16 - bits)) & 0xffff;
}

function octetPair(group: number): string {
  return `${group >> 8}.${group & 0xff}`;
}
