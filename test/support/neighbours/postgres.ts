import { readFileSync } from 'node:fs';
import { chown, mkdir, readdir } from 'node:fs/promises';
import { join } from 'node:path';

import type { DatabaseServer, ServerCertificate } from './database.ts';
import { privateFolder } from './folder.ts';
import { LineLog } from './line-log.ts';
import { freePort } from './ports.ts';
import { run, startProcess, type RunningProcess } from './process.ts';
import { idsOf } from './users.ts';

/** The server refuses root. */
const ACCOUNT = { user: 'postgres', group: 'postgres' };
const VERSIONS = '/usr/lib/postgresql';

/** A private PostgreSQL that need not survive anything. Over TCP it asks for passwords; its administrator comes in over the unix socket. */
export async function startPostgres(
  options: { readonly tls?: ServerCertificate } = {},
): Promise<DatabaseServer> {
  await using cleanup = new AsyncDisposableStack();
  const folder = cleanup.use(await privateFolder('postgres'));
  const programs = await newestPrograms();
  const { uid, gid } = await idsOf(ACCOUNT.user);
  const base = folder.join('base');
  await mkdir(base);
  await chown(base, uid, gid);
  const data = join(base, 'data');
  const port = await freePort();

  const made = await run(
    join(programs, 'initdb'),
    [
      '-D',
      data,
      '-U',
      'postgres',
      '--auth-local=trust',
      '--auth-host=scram-sha-256',
      '-E',
      'UTF8',
      '--locale=C',
      '-N',
    ],
    { runAs: ACCOUNT, deadlineMs: 120_000 },
  );
  if (made.code !== 0) throw new Error(`initdb: ${made.stdout}${made.stderr}`);

  const log = new LineLog('postgres');
  const start = async (after: number): Promise<RunningProcess> => {
    const { tls } = options;
    const settings = [
      'listen_addresses=127.0.0.1',
      `port=${port}`,
      `unix_socket_directories=${base}`,
      'fsync=off',
      'shared_buffers=16MB',
      ...(tls === undefined ? [] : ['ssl=on', `ssl_cert_file=${tls.certificate}`, `ssl_key_file=${tls.key}`]),
    ];
    const args = ['-D', data, ...settings.flatMap((setting) => ['-c', setting])];
    const started = startProcess(join(programs, 'postgres'), args, { name: 'postgres', log, runAs: ACCOUNT });
    await started.waitForLine(/database system is ready to accept connections/, {
      after,
      deadlineMs: 60_000,
    });
    return started;
  };
  let server = await start(0);
  cleanup.defer(() => server.stop());

  const owned = cleanup.move();
  return {
    port,
    socketPath: join(base, `.s.PGSQL.${port}`),
    async sql(text, database = 'postgres') {
      const args = [
        '-h',
        base,
        '-p',
        String(port),
        '-U',
        'postgres',
        '-d',
        database,
        '-v',
        'ON_ERROR_STOP=1',
        '-qAt',
      ];
      const result = await run(join(programs, 'psql'), args, { input: text, cwd: '/' });
      if (result.code !== 0) throw new Error(`psql: ${result.stderr}`);
      return result.stdout;
    },
    kill: () => server.kill(),
    async restart() {
      const after = log.mark();
      log.reopen();
      server = await start(after);
    },
    freeze: () => signalFamily(server.pid, 'SIGSTOP'),
    thaw: () => signalFamily(server.pid, 'SIGCONT'),
    log: () => server.output(),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** The server first, then the processes of its connections, each of which leads a group of its own. */
function signalFamily(leader: number, signal: NodeJS.Signals): void {
  process.kill(leader, signal);
  const children = readFileSync(`/proc/${leader}/task/${leader}/children`, 'latin1');
  for (const child of children.split(' ').map(Number).filter(Boolean)) process.kill(child, signal);
}

async function newestPrograms(): Promise<string> {
  const versions = (await readdir(VERSIONS)).map(Number).filter(Number.isInteger);
  return join(VERSIONS, String(Math.max(...versions)), 'bin');
}
