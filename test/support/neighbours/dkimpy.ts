import type { Bind } from './bind.ts';
import { run } from './process.ts';

/** The result of one DKIM signature, counted from the top, by dkimpy: `signature ok`. */
export async function dkimpyVerify(
  message: Uint8Array,
  index: number,
  bind: Pick<Bind, 'resolvConf'>,
): Promise<string> {
  const args = ['--index', String(index)];
  const result = await run('/usr/bin/dkimverify', args, { input: message, resolvConf: bind.resolvConf });
  return `${result.stdout}${result.stderr}`.trim();
}

/** The result of the ARC chain by dkimpy: `arc verification: cv=b'pass' success`. */
export async function dkimpyArc(message: Uint8Array, bind: Pick<Bind, 'resolvConf'>): Promise<string> {
  const result = await run('/usr/bin/arcverify', [], { input: message, resolvConf: bind.resolvConf });
  return `${result.stdout}${result.stderr}`.trim();
}
