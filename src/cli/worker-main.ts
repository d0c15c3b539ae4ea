import type { Log } from '../runtime/telemetry.ts';
import { WorkerSeat } from '../runtime/worker-seat.ts';
import { EXIT } from './arguments.ts';

// The entry of a worker, which `postern run` starts: see workers.ts.

/** The process that started us is told the same, and says what is to be done. */
for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, () => {});

let log: Log | null = null;
const die = (error: unknown): void => {
  if (log === null) process.stderr.write(`postern: a worker failed: ${textOf(error)}\n`);
  else log.fatal({ err: error }, 'an error was not caught');
  process.exit(EXIT.software);
};
process.on('uncaughtException', die);
process.on('unhandledRejection', die);

const { parseWorker, shareOf } = await import('./workers.ts');
const { findConfig } = await import('./config-file.ts');
const { loadConfig } = await import('../config/load.ts');
const { formatSocketAddress } = await import('../config/values.ts');
const { openLog } = await import('../runtime/telemetry.ts');
const { openSite } = await import('./wiring.ts');
const { version } = await import('./version.ts');

const { daemon, number, config: named } = parseWorker(process.argv.slice(2));
const loaded = await loadConfig(await findConfig(named));
// The file was good a moment ago, and may be good again when the next worker is started.
if (!loaded.ok) throw new Error('the configuration was changed, and can not be used any more');
const config = shareOf(loaded.config, daemon);
const { listen, max_connections: maxConnections } = config.file[daemon];
log = openLog(config.file.log.level).child({ worker: number });
const seat = new WorkerSeat({ channel: process, text: formatSocketAddress(listen), maxConnections });
{
  await using site = await openSite({
    config,
    daemons: [daemon],
    admin: 'none',
    log,
    version: await version(),
    given: seat.listener,
  });
  let reloading = Promise.resolve();
  const reload = async (before: Promise<void>): Promise<void> => {
    await before;
    const next = await loadConfig(await findConfig(named));
    site.reload(next.ok ? { ...next, config: shareOf(next.config, daemon) } : next);
  };
  seat.onReload(() => {
    reloading = reload(reloading);
  });
  seat.ready(site.registry);
  await seat.stopAsked;
  await site.stop(seat.cut);
  await seat.leave();
}
log.info({ daemon }, 'worker stopped');

function textOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}
