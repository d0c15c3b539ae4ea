import { chown, mkdir } from 'node:fs/promises';

import { privateFolder } from './folder.ts';
import { LineLog } from './line-log.ts';
import { freePort } from './ports.ts';
import { run, startProcess, type RunningProcess } from './process.ts';
import type { DatabaseServer, ServerCertificate } from './database.ts';
import { idsOf } from './users.ts';

/** The server refuses root. */
const ACCOUNT = { user: 'mysql', group: 'mysql' };

/** A private MariaDB with tables in memory and on disk as it likes. Its root comes in over the unix socket. */
export async function startMariadb(
  options: { readonly tls?: ServerCertificate } = {},
): Promise<DatabaseServer> {
  await using cleanup = new AsyncDisposableStack();
  const folder = cleanup.use(await privateFolder('mariadb'));
  const { uid, gid } = await idsOf(ACCOUNT.user);
  const data = folder.join('data');
  await mkdir(data);
  await chown(data, uid, gid);
  const socketPath = `${data}/s`;
  const port = await freePort();

  const made = await run(
    'mariadb-install-db',
    ['--no-defaults', `--datadir=${data}`, '--auth-root-authentication-method=normal', '--skip-test-db'],
    { runAs: ACCOUNT, deadlineMs: 120_000 },
  );
  if (made.code !== 0) throw new Error(`mariadb-install-db: ${made.stdout}${made.stderr}`);

  const log = new LineLog('mariadbd');
  const start = async (after: number): Promise<RunningProcess> => {
    const { tls } = options;
    const args = [
      '--no-defaults',
      `--datadir=${data}`,
      `--socket=${socketPath}`,
      `--pid-file=${data}/pid`,
      '--bind-address=127.0.0.1',
      `--port=${port}`,
      '--skip-name-resolve',
      '--innodb-buffer-pool-size=16M',
      '--innodb-log-file-size=8M',
      '--innodb-flush-log-at-trx-commit=2',
      '--performance-schema=off',
      ...(tls === undefined
        ? []
        : [`--ssl-cert=${tls.certificate}`, `--ssl-key=${tls.key}`, `--ssl-ca=${tls.ca}`]),
    ];
    const started = startProcess('/usr/sbin/mariadbd', args, { name: 'mariadbd', log, runAs: ACCOUNT });
    await started.waitForLine(/ready for connections\./, { after, deadlineMs: 60_000 });
    return started;
  };
  let server = await start(0);
  cleanup.defer(() => server.stop());

  const owned = cleanup.move();
  return {
    port,
    socketPath,
    async sql(text, database = '') {
      const args = [
        '--no-defaults',
        `--socket=${socketPath}`,
        '--user=root',
        '--batch',
        '--skip-column-names',
      ];
      const result = await run('mariadb', [...args, ...(database === '' ? [] : [database])], { input: text });
      if (result.code !== 0) throw new Error(`mariadb: ${result.stderr}`);
      return result.stdout;
    },
    kill: () => server.kill(),
    async restart() {
      const after = log.mark();
      log.reopen();
      server = await start(after);
    },
    freeze: () => server.signal('SIGSTOP'),
    thaw: () => server.signal('SIGCONT'),
    log: () => server.output(),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}
