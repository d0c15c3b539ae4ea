import { writeFile } from 'node:fs/promises';

import { Connection } from './connection.ts';
import { DEFAULT_DEADLINE_MS } from './deadline.ts';
import { eventually } from './eventually.ts';
import { privateFolder } from './folder.ts';
import { LineLog } from './line-log.ts';
import { freePort } from './ports.ts';
import { startProcess } from './process.ts';
import { readReply, startRedis, writeCommand, type RedisServer } from './redis.ts';

export const MASTER_NAME = 'postern';
/** How long a master may be silent before the Sentinels choose another. */
const DOWN_AFTER_MS = 1000;

export interface WatchedRedis extends AsyncDisposable {
  /** The master as it starts, and its replica. */
  readonly master: RedisServer;
  readonly replica: RedisServer;
  readonly sentinels: readonly { readonly host: string; readonly port: number }[];
  /** The port of the master, as the first Sentinel knows it. */
  masterPort(): Promise<number>;
}

/** A master, a replica, and three Sentinels that agree on them. */
export async function startWatchedRedis(): Promise<WatchedRedis> {
  await using cleanup = new AsyncDisposableStack();
  const quick = ['repl-diskless-sync-delay 0', 'repl-ping-replica-period 1'];
  const master = cleanup.use(await startRedis({ config: quick }));
  const replica = cleanup.use(
    await startRedis({ config: [...quick, `replicaof ${master.host} ${master.port}`] }),
  );
  const sentinels = await Promise.all([0, 1, 2].map(() => startSentinel(master.port)));
  for (const sentinel of sentinels) cleanup.use(sentinel);
  const facts = /(?=.*num-slaves,1,)(?=.*num-other-sentinels,2,)/;
  await eventually(DEFAULT_DEADLINE_MS, 'Sentinels that know everybody', async () => {
    const told = await Promise.all(sentinels.map((each) => each.command('SENTINEL', 'master', MASTER_NAME)));
    const linked = (await replica.command('INFO', 'replication')).includes('master_link_status:up');
    return linked && told.every((words) => facts.test(`${words.join(',')},`));
  });
  const owned = cleanup.move();
  return {
    master,
    replica,
    sentinels: sentinels.map(({ port }) => ({ host: '127.0.0.1', port })),
    async masterPort() {
      const words = await sentinels[0]?.command('SENTINEL', 'get-master-addr-by-name', MASTER_NAME);
      return Number(words?.[1]);
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

interface Sentinel extends AsyncDisposable {
  readonly port: number;
  command(...words: readonly string[]): Promise<string[]>;
}

async function startSentinel(masterPort: number): Promise<Sentinel> {
  await using cleanup = new AsyncDisposableStack();
  const folder = cleanup.use(await privateFolder('sentinel'));
  const port = await freePort();
  const config = folder.join('sentinel.conf');
  const lines = [
    'bind 127.0.0.1',
    `port ${port}`,
    `dir ${folder.path}`,
    'daemonize no',
    `sentinel monitor ${MASTER_NAME} 127.0.0.1 ${masterPort} 2`,
    `sentinel down-after-milliseconds ${MASTER_NAME} ${DOWN_AFTER_MS}`,
    `sentinel failover-timeout ${MASTER_NAME} 5000`,
  ];
  await writeFile(config, `${lines.join('\n')}\n`, { mode: 0o600 });
  const log = new LineLog('redis-sentinel');
  const sentinel = startProcess('/usr/bin/redis-server', [config, '--sentinel'], {
    name: 'redis-sentinel',
    cwd: folder.path,
    log,
  });
  cleanup.defer(() => sentinel.stop());
  await sentinel.waitForLine(/\+monitor master/);
  const owned = cleanup.move();
  return {
    port,
    async command(...words) {
      await using connection = await Connection.open({ port });
      writeCommand(connection, words);
      return await readReply(connection);
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}
