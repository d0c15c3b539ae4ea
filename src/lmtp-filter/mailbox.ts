import { settingsKey, type Address } from '../mail/address.ts';
import type { Directory } from '../ports/directory.ts';

/** The longest the directory may take to say where mail for an address ends. */
const DIRECTORY_MS = 2000;

/**
 * The mailbox that mail for an address is delivered to, as `settingsKey` writes it: Postfix has expanded aliases by now, but those that
 * Dovecot resolves. One of several mailboxes can't be told; the address stands for itself then.
 *
 * @throws {NeighbourError} when the directory can't tell
 */
export async function mailboxOf(address: Address, directory: Directory, delimiter: string): Promise<string> {
  const own = settingsKey(address, delimiter);
  const destination = await directory.destination(address, AbortSignal.timeout(DIRECTORY_MS));
  if (destination.kind === 'unknown') return own;
  const [only, ...others] = destination.mailboxes;
  return only === undefined || others.length > 0 || destination.elsewhere ? own : only.toLowerCase();
}
