import { accountKeyOfText } from '../checks/account-key.ts';

/** A login, or a device, as a part of a key: the name that the account has for what it sends, too. */
export function nameKey(name: string): string {
  return accountKeyOfText(name);
}

/** The key of one login from one network. The network stands last and holds no `|`, so that no login can pass for another pair. */
export function pairKey(login: string, network: string): string {
  return `${login}|${network}`;
}

/** Both parts of a pairKey. */
export function pairOf(key: string): { readonly login: string; readonly network: string } {
  const at = key.lastIndexOf('|');
  return { login: key.slice(0, at), network: key.slice(at + 1) };
}

/** The address without the zone of a link-local one (`fe80::1%eth0`). */
export function withoutZone(address: string): string {
  const at = address.indexOf('%');
  return at === -1 ? address : address.slice(0, at);
}
