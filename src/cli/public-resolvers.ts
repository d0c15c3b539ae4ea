import { watchedLists } from '../checks/dnsbl.ts';
import type { ConfigFile } from '../config/schema.ts';

/** Name servers that anybody may use, by the beginnings of their addresses. Most block lists refuse to answer what comes through them. */
const PUBLIC: readonly (readonly [prefix: string, whose: string])[] = [
  ['8.8.8.8', 'Google'],
  ['8.8.4.4', 'Google'],
  ['2001:4860:4860::', 'Google'],
  ['1.1.1.', 'Cloudflare'],
  ['1.0.0.', 'Cloudflare'],
  ['2606:4700:4700::', 'Cloudflare'],
  ['9.9.9.', 'Quad9'],
  ['149.112.112.', 'Quad9'],
  ['2620:fe::', 'Quad9'],
  ['208.67.222.', 'OpenDNS'],
  ['208.67.220.', 'OpenDNS'],
  ['2620:119:35::', 'OpenDNS'],
  ['2620:119:53::', 'OpenDNS'],
  ['64.6.64.6', 'Vercara'],
  ['64.6.65.6', 'Vercara'],
  ['4.2.2.', 'Level 3'],
  ['94.140.14.', 'AdGuard'],
  ['94.140.15.', 'AdGuard'],
  ['77.88.8.', 'Yandex'],
  ['185.228.168.', 'CleanBrowsing'],
  ['185.228.169.', 'CleanBrowsing'],
  ['76.76.2.', 'Control D'],
  ['76.76.10.', 'Control D'],
];

/** What an operator should know who asks block lists through somebody else's name server. */
export function publicResolverNotes(
  { checks }: ConfigFile,
  servers: readonly { readonly host: string }[],
): readonly string[] {
  const lists = watchedLists(checks['dnsbl']);
  if (lists.length === 0) return [];
  const names = lists.map(({ name }) => name).join(', ');
  return servers.flatMap(({ host }) => {
    const whose = ownerOf(host);
    if (whose === null) return [];
    return [
      `the block lists (${names}) are asked through ${host}, a public name server of ${whose}; most lists refuse that, or answer wrongly: run a name server of your own and name it in dns.servers`,
    ];
  });
}

function ownerOf(host: string): string | null {
  const address = host.toLowerCase();
  const match = PUBLIC.find(([prefix]) =>
    /[.:]$/.test(prefix) ? address.startsWith(prefix) : address === prefix,
  );
  return match?.[1] ?? null;
}
