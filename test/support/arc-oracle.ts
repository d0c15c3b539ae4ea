import { arc } from 'mailauth/lib/arc/index.js';
import { dkimVerify } from 'mailauth/lib/dkim/verify.js';

/** What mailauth, which shares no code with our sealer, says of a message's ARC chain: `pass`, `fail`, `none`. */
export async function arcWithMailauth(
  message: Uint8Array,
  resolveTxt: (name: string) => Promise<string[][]>,
): Promise<string> {
  const resolver = (name: string): Promise<string[][]> => resolveTxt(name);
  const { arc: data } = await dkimVerify(Buffer.from(message), { resolver, strict: true });
  if (data === undefined) return 'none';
  if (data.error !== undefined) return 'fail';
  if (data.chain === false) return 'none';
  const { status } = await arc({ ...data, chain: data.chain }, { resolver, strict: true });
  return status.result;
}
