import { readFileSync } from 'node:fs';
import { hostname } from 'node:os';

import { isDomainName } from './values.ts';

/**
 * The host's name with its domain, as far as that can be known without asking DNS: a name without a dot is completed from the
 * line of /etc/hosts that has it as an alias (`127.0.1.1 mail.example.org mail`), as `hostname -f` does. The kernel takes any
 * bytes for a host name; what is no domain name is not used.
 */
export function fullHostname(name: string = hostname(), hostsFile = '/etc/hosts'): string {
  if (!isDomainName(name)) return 'localhost';
  if (name.includes('.')) return name;
  for (const line of readHosts(hostsFile).split('\n')) {
    const [, ...names] = line.replace(/#.*/, '').trim().split(/\s+/);
    const full = names.find((other) => other.startsWith(`${name}.`));
    if (full !== undefined && names.includes(name) && isDomainName(full)) return full;
  }
  return name;
}

function readHosts(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return ''; // a host without the file (a container) has its short name, and the configuration says what to do about it
  }
}
