import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { z } from 'zod';

import { privateFolder } from './neighbours/folder.ts';
import { LineLog, type WaitOptions } from './neighbours/line-log.ts';
import { freePort } from './neighbours/ports.ts';
import { run, startProcess, type RunningProcess, type RunResult } from './neighbours/process.ts';

const ROOT = join(import.meta.dirname, '../..');
const MAIN = join(ROOT, 'src/cli/main.ts');

export type DaemonName = 'policyd' | 'milter' | 'lmtp-filter';

export interface PosternOptions {
  /** Further tables and keys of postern.toml, below ours. */
  readonly config?: string;
  /** `unix:/PATH` or `host:port` of Dovecot's LMTP. */
  readonly upstream?: string;
  readonly dnsPort?: number;
  readonly spamdPort?: number;
  /** Unix sockets in place of TCP. */
  readonly unix?: boolean;
  /** Default: mx.olimpus.example. */
  readonly hostname?: string;
  /** The network namespace that its processes run in (neighbours/network.ts). */
  readonly network?: string;
}

/** A record of `postern history --json`, as far as tests look at it. */
const DECISION = z.object({
  trace: z.string(),
  daemon: z.string(),
  stage: z.string(),
  direction: z.string(),
  queueId: z.string().nullable(),
  sender: z.string(),
  recipients: z.array(z.string()),
  verdict: z.string(),
  rule: z.string(),
  why: z.string(),
  score: z.number().nullable(),
  tagged: z.boolean(),
  reply: z.string(),
  shadow: z.array(z.object({ rule: z.string(), kind: z.string() })),
  outcomes: z.array(z.object({ check: z.string(), kind: z.string(), elapsed: z.number() })),
  host: z.string().optional(),
});

export type RecordedDecision = z.infer<typeof DECISION>;

export interface Postern extends AsyncDisposable {
  readonly folder: string;
  readonly configFile: string;
  /** As Postfix writes it: `inet:127.0.0.1:PORT` or `unix:/PATH`. */
  readonly address: Readonly<Record<DaemonName, string>>;
  readonly port: Readonly<Record<DaemonName, number>>;
  /** Starts the daemons in one process, or only those named, each call one more process. */
  start(...daemons: DaemonName[]): Promise<PosternProcess>;
  /** Runs the command to its end. */
  command(...args: string[]): Promise<RunResult>;
  history(...filters: string[]): Promise<RecordedDecision[]>;
  /** Writes postern.toml anew; takes effect with SIGHUP or a start. */
  configure(config: string): Promise<void>;
}

export interface PosternProcess {
  readonly pid: number;
  readonly adminPort: number;
  readonly log: LineLog;
  waitForLog(pattern: RegExp, options?: WaitOptions): Promise<string>;
  metrics(): Promise<string>;
  signal(name: NodeJS.Signals): void;
  /** SIGTERM, and its exit code. */
  stop(): Promise<number | null>;
  kill(): Promise<void>;
}

/** A folder with a configuration of its own, from which Postern's processes are started. */
export async function preparePostern(options: PosternOptions = {}): Promise<Postern> {
  await using cleanup = new AsyncDisposableStack();
  const folder = cleanup.use(await privateFolder('postern'));
  const port = { policyd: await freePort(), milter: await freePort(), 'lmtp-filter': await freePort() };
  const sockets = folder.join('sockets');
  const listen = (name: DaemonName): string =>
    options.unix ? `unix:${sockets}/${name}` : `127.0.0.1:${port[name]}`;
  const postfixForm = (name: DaemonName): string => (options.unix ? listen(name) : `inet:${listen(name)}`);
  if (options.unix) await (await import('node:fs/promises')).mkdir(sockets, { mode: 0o755 });
  const configFile = folder.join('postern.toml');
  const base = [
    `site.hostname = ${JSON.stringify(options.hostname ?? 'mx.olimpus.example')}`,
    `state.folder = ${JSON.stringify(folder.join('state'))}`,
    ...(options.dnsPort === undefined ? [] : [`dns.servers = ["127.0.0.1:${options.dnsPort}"]`]),
    ...(options.spamdPort === undefined
      ? ['spamd.enabled = false']
      : [`spamd.address = "127.0.0.1:${options.spamdPort}"`, 'spamd.enabled = true']),
    ...(options.upstream === undefined ? [] : [`lmtp-filter.upstream = ${JSON.stringify(options.upstream)}`]),
    ...(['policyd', 'milter', 'lmtp-filter'] as const).flatMap((name) => [
      `${name}.listen = ${JSON.stringify(listen(name))}`,
      ...(options.unix ? [`${name}.mode = "0666"`] : []),
    ]),
  ].join('\n');
  const configure = (config: string): Promise<void> => writeFile(configFile, `${base}\n${config}\n`);
  await configure(options.config ?? '');

  const network = options.network === undefined ? {} : { network: options.network };
  const running = new Set<RunningProcess>();
  cleanup.defer(async () => {
    await Promise.all([...running].map((child) => child.kill()));
  });
  const command = (...args: string[]): Promise<RunResult> =>
    run(process.execPath, [MAIN, ...args, '--config', configFile], { cwd: folder.path, ...network });

  const stack = cleanup.move();
  return {
    folder: folder.path,
    configFile,
    port,
    address: {
      policyd: postfixForm('policyd'),
      milter: postfixForm('milter'),
      'lmtp-filter': postfixForm('lmtp-filter'),
    },
    configure,
    command,
    async start(...daemons) {
      const adminPort = await freePort();
      const log = new LineLog('postern');
      const args = [MAIN, 'run', ...daemons, '--config', configFile, '--admin', `127.0.0.1:${adminPort}`];
      const child = startProcess(process.execPath, args, {
        name: 'postern',
        log,
        cwd: folder.path,
        ...network,
      });
      running.add(child);
      // With workers it is several processes that start.
      await child.waitForLine(/"msg":"ready"/, { deadlineMs: 60_000 });
      return {
        pid: child.pid,
        adminPort,
        log,
        waitForLog: (pattern, wait) => child.waitForLine(pattern, wait),
        signal: (name) => child.signal(name),
        async metrics() {
          const answer = await fetch(`http://127.0.0.1:${adminPort}/metrics`);
          return answer.text();
        },
        async stop() {
          child.signal('SIGTERM');
          const { code } = await child.exited;
          running.delete(child);
          return code;
        },
        async kill() {
          await child.kill();
          running.delete(child);
        },
      };
    },
    async history(...filters) {
      const { code, stdout, stderr } = await command('history', '--json', ...filters);
      if (code !== 0) throw new Error(`postern history ended with ${code}: ${stderr}`);
      return stdout
        .split('\n')
        .filter((line) => line !== '')
        .map((line) => DECISION.parse(JSON.parse(line)));
    },
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}
