import { openKeyFiles, type FileKeys, type KeyFilesEvents } from '../../src/adapters/key-files.ts';
import { systemClock } from '../../src/cli/clock.ts';
import { optionsOf } from '../../src/cli/open-keys.ts';
import type { Config } from '../../src/config/config.ts';
import { readSigningKey } from '../../src/config/keys.ts';
import { NO_KEYS, type SigningKey, type SigningKeys } from '../../src/ports/signing-keys.ts';

const QUIET: KeyFilesEvents = { loaded() {}, broken() {}, gone() {}, folderFailed() {} };

/** Keys that are held in memory. */
export function heldKeys(...keys: readonly SigningKey[]): SigningKeys {
  return {
    keysOf(domain) {
      const own = keys.filter((key) => key.domain === domain);
      return own.length === 0 ? NO_KEYS : { kind: 'usable', keys: own };
    },
  };
}

/** The keys that a configuration names, as they are now. */
export async function keysOf(config: Config): Promise<FileKeys> {
  using keys = await openKeyFiles(optionsOf(config), readSigningKey, systemClock, QUIET);
  return keys;
}
