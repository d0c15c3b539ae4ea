import { chown, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { privateFolder } from './folder.ts';
import { freePort } from './ports.ts';
import { startProcess } from './process.ts';
import { idsOf } from './users.ts';

const USER = '_rspamd';
const START_DEADLINE_MS = 60_000;

export interface Rspamd extends AsyncDisposable {
  readonly host: '127.0.0.1';
  /** Of the normal worker. */
  readonly port: number;
  readonly socketPath: string;
  log(): string;
  waitForLog(pattern: RegExp, options?: { after?: number; deadlineMs?: number }): Promise<string>;
  stop(): Promise<void>;
}

/** A private rspamd with one normal worker and the packaged rules, without network and without Redis. `conf`: further lines. */
export async function startRspamd(conf: readonly string[] = []): Promise<Rspamd> {
  await using cleanup = new AsyncDisposableStack();
  const folder = cleanup.use(await privateFolder('rspamd'));
  const [port, nobody] = [await freePort(), await freePort()];
  const owner = await idsOf(USER);
  const data = folder.join('data');
  await mkdir(data);
  await chown(data, owner.uid, owner.gid);
  await writeFile(join(data, 'suffixes'), 'com\nnet\norg\nexample\n');
  const socketPath = join(data, 'worker.sock');
  const file = folder.join('rspamd.conf');
  await writeFile(file, [...configuration(data, socketPath, { port, nobody }), ...conf].join('\n'));
  const variables = { DBDIR: data, RUNDIR: data, LOGDIR: data, LOCAL_CONFDIR: folder.path };
  const rspamd = cleanup.use(
    startProcess(
      'rspamd',
      [
        '-f',
        '-c',
        file,
        ...Object.entries(variables).flatMap(([name, value]) => ['--var', `${name}=${value}`]),
      ],
      { cwd: folder.path, runAs: { user: USER, group: USER } },
    ),
  );
  await rspamd.waitForLine(/starting normal process/, {
    deadlineMs: START_DEADLINE_MS,
  });

  const owned = cleanup.move();
  return {
    host: '127.0.0.1',
    port,
    socketPath,
    log: () => rspamd.output(),
    waitForLog: (pattern, wait) => rspamd.waitForLine(pattern, wait),
    stop: () => owned.disposeAsync(),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

function configuration(
  data: string,
  socketPath: string,
  ports: { readonly port: number; readonly nobody: number },
): string[] {
  return [
    'options {',
    // Compiling its expressions takes half a minute.
    '  disable_hyperscan = true;',
    `  pidfile = "${data}/rspamd.pid";`,
    '  filters = "regexp";',
    `  control_socket = "${data}/control.sock mode=0600";`,
    `  tempdir = "${data}";`,
    `  hs_cache_dir = "${data}/";`,
    `  dynamic_conf = "${data}/dynamic";`,
    // The packaged list of 9,000 domains takes a quarter of a minute to compile.
    `  url_tld = "${data}/suffixes";`,
    // Nobody answers there: no question leaves this machine.
    `  dns { nameserver = ["127.0.0.1:${ports.nobody}"]; timeout = 0.1s; retransmits = 1; }`,
    '}',
    'logging { type = "console"; level = "info"; }',
    'worker "normal" {',
    `  bind_socket = "127.0.0.1:${ports.port}";`,
    `  bind_socket = "${socketPath} mode=0666";`,
    '  count = 1;',
    '}',
    'lua = "$RULESDIR/rspamd.lua"',
    'actions { greylist = 4; add_header = 6; reject = 15; }',
    '.include "$CONFDIR/groups.conf"',
    '.include "$CONFDIR/composites.conf"',
    `modules { path = "${data}"; }`,
  ];
}
