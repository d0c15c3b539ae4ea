import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';

import type { Availability } from './available.ts';
import { run } from './process.ts';

const IP = '/usr/sbin/ip';
const UNSHARE = '/usr/bin/unshare';
/** TEST-NET-1, RFC 5737. */
const NETWORK = '192.0.2.';
const FIRST = 10;
/** The longest name of an interface is 15 characters. */
const BRIDGE = 'wire';

/** A host of its own to the programs that are started in it; files and unix sockets it shares with this one. */
export interface NetworkHost {
  /** For `network` of what is started there. */
  readonly network: string;
  readonly address: string;
  /** Takes its cable out, or puts it back: what is sent to it, and what it sends, is gone. */
  cut(): Promise<void>;
  mend(): Promise<void>;
}

export interface Network extends AsyncDisposable {
  host(name: string): NetworkHost;
}

/** Whether this machine lets us make network namespaces, and if not, why. */
export function networksAvailable(): Availability {
  if (!existsSync(UNSHARE)) return { ok: false, reason: 'no unshare (package util-linux)' };
  const attempt = spawnSync(UNSHARE, ['--net', 'true'], { timeout: 5000 });
  if (attempt.status === 0) return { ok: true };
  return { ok: false, reason: `no network namespaces: ${attempt.stderr.toString().trim()}` };
}

/** Hosts as network namespaces, each with a cable to one more that is the switch between them. No other network is touched, and none is reached. */
export async function startNetwork(names: readonly string[]): Promise<Network> {
  await using cleanup = new AsyncDisposableStack();
  const mark = `postern-${process.pid}-${Math.random().toString(36).slice(2, 8)}`;
  const namespace = async (name: string): Promise<string> => {
    await ip('netns', 'add', name);
    // With it go its interfaces, and those at the other end of its cables.
    cleanup.defer(() => ip('netns', 'delete', name));
    await ip('-n', name, 'link', 'set', 'lo', 'up');
    return name;
  };
  const wires = await namespace(`${mark}-switch`);
  await ip('-n', wires, 'link', 'add', BRIDGE, 'type', 'bridge');
  await ip('-n', wires, 'link', 'set', BRIDGE, 'up');
  const hosts = new Map<string, NetworkHost>();
  for (const [index, name] of names.entries()) {
    const network = await namespace(`${mark}-${name}`);
    const [address, port] = [`${NETWORK}${FIRST + index}`, `port${index}`];
    const cable = [
      'link',
      'add',
      port,
      'netns',
      wires,
      'type',
      'veth',
      'peer',
      'name',
      'eth0',
      'netns',
      network,
    ];
    await ip(...cable);
    await ip('-n', wires, 'link', 'set', port, 'master', BRIDGE);
    await ip('-n', wires, 'link', 'set', port, 'up');
    await ip('-n', network, 'address', 'add', `${address}/24`, 'dev', 'eth0');
    await ip('-n', network, 'link', 'set', 'eth0', 'up');
    hosts.set(name, {
      network,
      address,
      cut: () => ip('-n', wires, 'link', 'set', port, 'down'),
      mend: () => ip('-n', wires, 'link', 'set', port, 'up'),
    });
  }
  const owned = cleanup.move();
  return {
    host(name) {
      const host = hosts.get(name);
      if (host === undefined) throw new Error(`no host ${name}`);
      return host;
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

async function ip(...words: readonly string[]): Promise<void> {
  const { code, stderr } = await run(IP, words);
  if (code !== 0) throw new Error(`ip ${words.join(' ')}: ${stderr.trim()}`);
}
