import { DEFAULT_DEADLINE_MS } from './deadline.ts';
import { eventually } from './eventually.ts';
import { freePort } from './ports.ts';
import { startRedis, type RedisServer } from './redis.ts';

const MASTERS = 3;
const SLOTS = 16_384;
/** How long a node may be silent before the others take it for failed. */
const NODE_TIMEOUT_MS = 1000;

export interface RedisClusterServers extends AsyncDisposable {
  /** Each with a third of the slots. */
  readonly masters: readonly RedisServer[];
  /** One for each master, in their order. */
  readonly replicas: readonly RedisServer[];
  readonly nodes: readonly { readonly host: string; readonly port: number }[];
  /** The port of the master that has a key, as a node that runs knows it. */
  portOf(asked: RedisServer, key: string): Promise<number>;
}

/** Six nodes on loopback: three masters, and a replica of each. */
export async function startRedisCluster(): Promise<RedisClusterServers> {
  await using cleanup = new AsyncDisposableStack();
  const started: { server: RedisServer; bus: number }[] = [];
  for (let node = 0; node < 2 * MASTERS; node++) {
    const bus = await freePort();
    const server = await startRedis({
      config: [
        'cluster-enabled yes',
        `cluster-port ${bus}`,
        'cluster-require-full-coverage no',
        `cluster-node-timeout ${NODE_TIMEOUT_MS}`,
        'repl-diskless-sync-delay 0',
        'repl-ping-replica-period 1',
      ],
    });
    cleanup.use(server);
    started.push({ server, bus });
  }
  const servers = started.map(({ server }) => server);
  const [masters, replicas] = [servers.slice(0, MASTERS), servers.slice(MASTERS)];
  const [first] = servers;
  if (first === undefined) throw new Error('no nodes');
  for (const [index, master] of masters.entries()) {
    const from = Math.floor((index * SLOTS) / MASTERS);
    const to = Math.floor(((index + 1) * SLOTS) / MASTERS) - 1;
    await master.command('CLUSTER', 'ADDSLOTSRANGE', `${from}`, `${to}`);
    // Else two of them may claim the same epoch, which takes them a while to sort out.
    await master.command('CLUSTER', 'SET-CONFIG-EPOCH', `${index + 1}`);
  }
  for (const { server, bus } of started.slice(1)) {
    await first.command('CLUSTER', 'MEET', server.host, `${server.port}`, `${bus}`);
  }
  await all(servers, 'nodes that know each other', (lines) =>
    lines.includes(`cluster_known_nodes:${2 * MASTERS}`),
  );
  for (const [index, replica] of replicas.entries()) {
    const [id = ''] = (await masters[index]?.command('CLUSTER', 'MYID')) ?? [];
    await eventually(DEFAULT_DEADLINE_MS, 'a replica', () => accepted(replica, id));
  }
  await all(servers, 'a whole cluster', (lines) => lines.includes('cluster_state:ok'));
  await eventually(DEFAULT_DEADLINE_MS, 'replicas that follow', async () => {
    const told = await Promise.all(replicas.map((each) => each.command('INFO', 'replication')));
    const slots = await Promise.all(servers.map((each) => each.command('CLUSTER', 'SLOTS')));
    const ports = servers.map(({ port }) => `${port}`);
    return (
      told.every((lines) => lines.includes('master_link_status:up')) &&
      slots.every((words) => ports.every((port) => words.includes(port)))
    );
  });
  const owned = cleanup.move();
  return {
    masters,
    replicas,
    nodes: servers.map(({ host, port }) => ({ host, port })),
    async portOf(asked, key) {
      const [slot] = await asked.command('CLUSTER', 'KEYSLOT', key);
      const [text = ''] = await asked.command('CLUSTER', 'NODES');
      for (const line of text.split('\n')) {
        const [, address = '', flags = '', , , , , , ...ranges] = line.split(' ');
        if (!flags.includes('master') || flags.includes('fail')) continue;
        const has = ranges.some((range) => {
          const [from, to] = range.split('-').map(Number);
          return Number(slot) >= (from ?? Infinity) && Number(slot) <= (to ?? from ?? -1);
        });
        if (has) return Number(/:(\d+)@/.exec(address)?.[1]);
      }
      throw new Error(`nobody has ${key}`);
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

async function all(
  servers: readonly RedisServer[],
  what: string,
  holds: (lines: readonly string[]) => boolean,
): Promise<void> {
  await eventually(DEFAULT_DEADLINE_MS, what, async () => {
    const told = await Promise.all(servers.map((each) => each.command('CLUSTER', 'INFO')));
    return told.every(holds);
  });
}

/** The node has heard of that master by now. */
async function accepted(replica: RedisServer, master: string): Promise<boolean> {
  try {
    await replica.command('CLUSTER', 'REPLICATE', master);
    return true;
  } catch (error) {
    if (error instanceof Error && error.message.includes('Unknown node')) return false;
    throw error;
  }
}
