import type { MailFacts } from './check.ts';
import { parseIp, type IpAddress } from './networks.ts';

/** What of a message a list is asked about. */
export const SUBJECTS = ['client', 'client-ipv4', 'client-ipv6', 'helo', 'sender', 'ptr'] as const;
export type ListSubject = (typeof SUBJECTS)[number];

/** RFC 1035 §2.3.4, for the name with the zone of the list. */
const NAME_LIMIT = 253;

const DOMAIN =
  /^(?=.{1,253}$)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)+(?![0-9]+$)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;

export function isAddressSubject(subject: ListSubject): boolean {
  return subject.startsWith('client');
}

/** What stands in front of the zone, in lower case; null: there is nothing that a list could be asked about. */
export function labelsOf(subject: ListSubject, { client, sender }: MailFacts): string | null {
  switch (subject) {
    case 'client':
    case 'client-ipv4':
    case 'client-ipv6': {
      const address = parseIp(client.address);
      if (address === null || isLocal(address)) return null;
      const only = subject === 'client' ? address.length : subject === 'client-ipv4' ? 2 : 8;
      return address.length === only ? addressLabels(address) : null;
    }
    case 'helo':
      return domainLabels(client.helo);
    case 'sender':
      return sender.kind === 'null' ? null : domainLabels(sender.address.domain);
    case 'ptr':
      // The verified name: whoever has a PTR record can have any name stand in it, that of a welcome host too.
      return domainLabels(client.name);
  }
}

/** `labels` below `zone`; null when that is too long for a name. */
export function listName(labels: string, zone: string): string | null {
  const name = `${labels}.${zone}`;
  return name.length > NAME_LIMIT ? null : name;
}

/** RFC 5782 §2.1, §2.4: octets, or nibbles, from last to first. */
export function addressLabels(address: IpAddress): string {
  const parts: string[] = [];
  if (address.length === 2) {
    for (const group of address) parts.unshift(String(group & 0xff), String(group >> 8));
    return parts.join('.');
  }
  for (const group of address) parts.unshift(...group.toString(16).padStart(4, '0').split('').toReversed());
  return parts.join('.');
}

function domainLabels(name: string | null): string | null {
  if (name === null) return null;
  const lower = name.toLowerCase();
  const domain = lower.endsWith('.') ? lower.slice(0, -1) : lower;
  // Address literals, single words and what is no name at all are in no list.
  return DOMAIN.test(domain) ? domain : null;
}

/** Addresses that mean another host on each network, about which no list in the world can say anything. RFC 1918, RFC 1122, RFC 3927, RFC 4193. */
function isLocal([first = 0, second = 0, ...rest]: IpAddress): boolean {
  if (rest.length === 0) {
    const [a, b] = [first >> 8, first & 0xff];
    return (
      a === 10 ||
      a === 127 ||
      (a === 172 && b >= 16 && b < 32) ||
      (a === 192 && b === 168) ||
      (a === 169 && b === 254)
    );
  }
  const loopback =
    first === 0 && second === 0 && rest.every((group, index) => group === (index === 5 ? 1 : 0));
  return loopback || first >> 9 === 0x7e || first >> 6 === 0x3fa;
}
