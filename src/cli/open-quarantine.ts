import { join } from 'node:path';

import { QuarantineFolder } from '../adapters/quarantine-folder.ts';
import type { QuarantineEvents } from '../adapters/quarantine-room.ts';
import type { Config } from '../config/config.ts';
import { counter, gauge } from '../runtime/metrics.ts';
import type { Log, Registry, Telemetry } from '../runtime/telemetry.ts';
import { systemClock } from './clock.ts';

const SILENT: QuarantineEvents = { filled: () => undefined, removed: () => undefined };
const EXPIRE_EVERY_MS = 3_600_000;

/** For a command. Nothing is made that is not there. */
export function openQuarantine(config: Config): QuarantineFolder {
  return folderFor(() => config, SILENT);
}

export interface SiteQuarantine extends Disposable {
  readonly folder: QuarantineFolder;
  /** Makes the folder where it is used now. @throws when it can't be made */
  prepare(): Promise<void>;
}

/** For daemons: counts what is in it, and removes what is too old, now and every hour. `current` changes with a reload. */
export function openSiteQuarantine(current: () => Config, { log, registry }: Telemetry): SiteQuarantine {
  const metrics = quarantineMetrics(registry);
  const folder = folderFor(current, {
    filled(messages, octets) {
      metrics.messages.set(messages);
      metrics.octets.set(octets);
    },
    removed(id, why) {
      metrics.removed.inc({ why });
      log.info({ id, why }, 'message removed from the quarantine');
    },
  });
  const expire = (): Promise<void> => expireOnce(folder, current(), log);
  const timer = setInterval(() => void expire(), EXPIRE_EVERY_MS).unref();
  return {
    folder,
    async prepare() {
      if (current().file.quarantine.where !== 'folder') return;
      await folder.prepare();
      void expire();
    },
    [Symbol.dispose]: () => clearInterval(timer),
  };
}

async function expireOnce(folder: QuarantineFolder, { file }: Config, log: Log): Promise<void> {
  if (file.quarantine.where !== 'folder') return;
  try {
    await folder.expire();
  } catch (error) {
    log.error({ err: error }, 'old messages could not be removed from the quarantine');
  }
}

// What is made is the type: three metrics with their labels.
// oxlint-disable-next-line typescript/explicit-module-boundary-types
export function quarantineMetrics(registry: Registry) {
  return {
    messages: gauge(registry, {
      name: 'postern_quarantine_messages',
      help: 'Messages in the quarantine folder.',
      together: 'max',
    }),
    octets: gauge(registry, {
      name: 'postern_quarantine_octets',
      help: 'Size of the messages in the quarantine folder.',
      together: 'max',
    }),
    removed: counter<'why'>(registry, {
      name: 'postern_quarantine_removed_total',
      help: 'Messages removed from the quarantine folder because they were too old, or for the room of newer ones.',
      labels: { why: ['age', 'room'] },
    }),
  };
}

function folderFor(current: () => Config, events: QuarantineEvents): QuarantineFolder {
  const path = join(current().file.state.folder, 'quarantine');
  const limits = () => {
    const { max_age, max_size, max_messages, least_age } = current().file.quarantine;
    return { maxAgeMs: max_age, maxOctets: max_size, maxMessages: max_messages, leastAgeMs: least_age };
  };
  return new QuarantineFolder(path, limits, events, () => systemClock.now());
}
