import { createConnection } from 'node:net';
import { setTimeout } from 'node:timers/promises';

import type { Bind } from './bind.ts';
import { DEFAULT_DEADLINE_MS } from './deadline.ts';
import { run, startProcess, type RunningProcess } from './process.ts';

export interface OpendkimResult {
  readonly pass: boolean;
  /** What opendkim-testmsg printed: nothing if the signature is good. */
  readonly text: string;
}

/**
 * Verifies the message's DKIM signature with OpenDKIM, an implementation that is not ours. It wants a whole message:
 * without From or Date it says "Syntax error".
 */
export async function opendkimVerify(
  message: string | Uint8Array,
  bind: Pick<Bind, 'resolvConf'>,
): Promise<OpendkimResult> {
  const result = await run('opendkim-testmsg', ['-C'], { input: message, resolvConf: bind.resolvConf });
  return { pass: result.code === 0, text: `${result.stdout}${result.stderr}`.trim() };
}

export interface DkimKey {
  readonly domain: string;
  readonly selector: string;
  /** A file with the private key in PEM. */
  readonly keyFile: string;
}

/** The message signed by OpenDKIM: with rsa-sha1, the only algorithm that its tool uses. */
export async function opendkimSign(message: string | Uint8Array, key: DkimKey): Promise<string> {
  const args = ['-C', '-d', key.domain, '-s', key.selector, '-k', key.keyFile];
  const result = await run('opendkim-testmsg', args, { input: message });
  if (result.code !== 0) throw new Error(`opendkim-testmsg: ${result.stdout}${result.stderr}`);
  return result.stdout;
}

const LOOK_AGAIN_MS = 20;

/** The milter with a configuration file whose Socket is this port of 127.0.0.1. */
export async function startOpendkim(config: string, port: number): Promise<RunningProcess> {
  const child = startProcess('/usr/sbin/opendkim', ['-f', '-x', config], { name: 'opendkim' });
  const end = Date.now() + DEFAULT_DEADLINE_MS;
  // It says nothing when it begins to listen.
  while (!(await listens(port))) {
    if (Date.now() > end) {
      await child.kill();
      throw new Error(`opendkim does not listen: ${child.output()}`);
    }
    await setTimeout(LOOK_AGAIN_MS);
  }
  return child;
}

function listens(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createConnection({ host: '127.0.0.1', port });
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}
