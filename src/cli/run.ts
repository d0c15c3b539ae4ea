import { Lifecycle } from '../runtime/lifecycle.ts';
import type { Log } from '../runtime/telemetry.ts';
import { EXIT, type RunArguments } from './arguments.ts';

/** `postern run`: runs the daemons until a signal ends them; gives the exit code. */
export async function run({ daemons, config: named, admin }: RunArguments): Promise<number> {
  let log: Log | null = null;
  // First thing, before the long imports: until then SIGHUP kills.
  using lifecycle = new Lifecycle({
    events: process,
    exit: (code) => process.exit(code),
    fatal: (message, error) => {
      if (log === null) process.stderr.write(`postern: ${message}: ${stackOf(error)}\n`);
      else log.fatal({ err: error }, message);
    },
  });
  const { findConfig, readConfig } = await import('./config-file.ts');
  const { loadConfig } = await import('../config/load.ts');
  const { openLog } = await import('../runtime/telemetry.ts');
  const { openSite } = await import('./wiring.ts');
  const { version } = await import('./version.ts');
  const { startWorker } = await import('./workers.ts');

  const loaded = await readConfig(named);
  if (loaded === null) return EXIT.config;
  log = openLog(loaded.config.file.log.level);
  for (const note of loaded.notes) log.warn({ note }, 'note on the configuration');
  const running = await version();
  let site;
  try {
    site = await openSite({
      config: loaded.config,
      daemons,
      admin,
      log,
      version: running,
      startWorker: (daemon, number) => startWorker({ daemon, number, config: named }),
    });
  } catch (error) {
    log.fatal({ why: causesOf(error) }, 'cannot start');
    return EXIT.failed;
  }
  await using open = site;
  lifecycle.onReload(async () => open.reload(await loadConfig(await findConfig(named))));
  log.info({ daemons, pid: process.pid, version: running, config: loaded.source }, 'ready');

  const signal = await lifecycle.stopAsked;
  log.info({ signal }, 'stopping');
  await lifecycle.finish(async (cutOff) => {
    await open.stop(cutOff);
    await open[Symbol.asyncDispose]();
  });
  log.info('stopped');
  return EXIT.ok;
}

function causesOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function stackOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}
