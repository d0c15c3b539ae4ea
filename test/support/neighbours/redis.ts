import { writeFile } from 'node:fs/promises';
import { Connection } from './connection.ts';
import { privateFolder } from './folder.ts';
import { LineLog } from './line-log.ts';
import type { NetworkHost } from './network.ts';
import { freePort } from './ports.ts';
import { type RunningProcess, startProcess } from './process.ts';

const PROGRAM = '/usr/bin/redis-server';

export interface RedisServerOptions {
  /** Further lines of redis.conf. */
  readonly config?: readonly string[];
  /** Where it runs in place of this machine's loopback. */
  readonly host?: NetworkHost;
}

export interface RedisServer extends AsyncDisposable {
  readonly host: string;
  readonly port: number;
  readonly socketPath: string;
  /** Its private files, gone when it has stopped. */
  readonly folder: string;
  /** One command of plain words, over a connection of its own; the lines of the answer. Fails when the server says `-ERR …`. */
  command(...words: readonly string[]): Promise<string[]>;
  /** Ends the server as a crash would: what it knew is gone. */
  kill(): Promise<void>;
  /** Starts it again, at the same addresses, after `kill`. */
  restart(): Promise<void>;
  /** It takes connections from now on, because the kernel does that, and answers nothing. */
  freeze(): void;
  thaw(): void;
  log(): string;
  stop(): Promise<void>;
}

/** A private redis-server that keeps everything in memory. */
export async function startRedis(options: RedisServerOptions = {}): Promise<RedisServer> {
  await using cleanup = new AsyncDisposableStack();
  const folder = cleanup.use(await privateFolder('redis'));
  const { address, network } = options.host ?? { address: '127.0.0.1', network: undefined };
  const port = await freePort();
  const socketPath = folder.join('redis.sock');
  const config = folder.join('redis.conf');
  const lines = [
    `bind ${address}`,
    // Tests ask it from other hosts, too, without a password.
    ...(options.host === undefined ? [] : ['protected-mode no']),
    `port ${port}`,
    `unixsocket ${socketPath}`,
    'unixsocketperm 700',
    `dir ${folder.path}`,
    'save ""',
    'appendonly no',
    'daemonize no',
    ...(options.config ?? []),
  ];
  await writeFile(config, `${lines.join('\n')}\n`, { mode: 0o600 });

  const log = new LineLog('redis-server');
  let server = await start(0);
  cleanup.defer(() => server.stop());

  async function start(after: number): Promise<RunningProcess> {
    const started = startProcess(PROGRAM, [config], {
      name: 'redis-server',
      cwd: folder.path,
      log,
      ...(network === undefined ? {} : { network }),
    });
    await started.waitForLine(/The server is now ready to accept connections at/, { after });
    return started;
  }

  async function command(...words: readonly string[]): Promise<string[]> {
    await using connection = await Connection.open({ path: socketPath });
    writeCommand(connection, words);
    return await readReply(connection);
  }

  const owned = cleanup.move();
  return {
    host: address,
    port,
    socketPath,
    folder: folder.path,
    command,
    kill: () => server.kill(),
    async restart() {
      const after = log.mark();
      log.reopen();
      server = await start(after);
    },
    freeze: () => server.signal('SIGSTOP'),
    thaw: () => server.signal('SIGCONT'),
    log: () => server.output(),
    stop: () => owned.disposeAsync(),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

export function writeCommand(connection: Connection, words: readonly string[]): void {
  const parts = words.map((word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`);
  connection.write(`*${words.length}\r\n${parts.join('')}`);
}

/** RESP2, as far as a test asks: an array becomes its elements, a text its lines, nil no line. */
export async function readReply(connection: Connection): Promise<string[]> {
  const line = (await connection.readLine()).toString();
  const rest = line.slice(1);
  switch (line.slice(0, 1)) {
    case '-':
      throw new Error(`redis-server answered ${rest}`);
    case '$': {
      if (rest === '-1') return [];
      const text = await connection.readExactly(Number(rest) + 2);
      return text.subarray(0, -2).toString().split('\r\n');
    }
    case '*': {
      const elements: string[] = [];
      for (let index = 0; index < Number(rest); index += 1) elements.push(...(await readReply(connection)));
      return elements;
    }
    default:
      return [rest];
  }
}
