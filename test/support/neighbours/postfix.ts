import { chmod, chown, mkdir, readFile, utimes, writeFile } from 'node:fs/promises';
import { setTimeout } from 'node:timers/promises';
import { z } from 'zod';
import { DEFAULT_DEADLINE_MS } from './deadline.ts';
import { type PrivateFolder, privateFolder } from './folder.ts';
import { LineLog, type WaitOptions, tailFile } from './line-log.ts';
import { freePort } from './ports.ts';
import { type PostfixOptions, type PostfixPorts, mainCf, masterCf, tables } from './postfix-config.ts';
import { type RunningProcess, run, startProcess } from './process.ts';

export type { PostfixOptions } from './postfix-config.ts';

const MASTER = '/usr/lib/postfix/sbin/master';

const RELOAD_DEADLINE_MS = 2_000;
const LOOK_AGAIN_MS = 10;
const FILE_AGE_MS = 60_000;

/** Those of Postfix's queue folders that belong to its user alone. */
const QUEUES = 'active bounce corrupt defer deferred flush hold incoming private saved trace'.split(' ');

/** postqueue(1), JSON OBJECT FORMAT */
const QUEUE_LINE = z.object({
  queue_name: z.string(),
  queue_id: z.string(),
  arrival_time: z.number(),
  message_size: z.number(),
  sender: z.string(),
  recipients: z.array(z.object({ address: z.string(), delay_reason: z.string().optional() })),
});

export interface QueuedRecipient {
  readonly address: string;
  readonly delayReason?: string;
}

export interface QueuedMessage {
  /** `maildrop`, `incoming`, `active`, `deferred` or `hold`. */
  readonly queueName: string;
  readonly queueId: string;
  readonly arrivalTime: number;
  readonly messageSize: number;
  readonly sender: string;
  readonly recipients: readonly QueuedRecipient[];
}

export interface Postfix extends AsyncDisposable {
  readonly host: '127.0.0.1';
  readonly hostname: string;
  readonly smtpPort: number;
  /** Only with `saslSocket`. */
  readonly submissionPort: number;
  readonly configDirectory: string;
  /** Its private files, gone when it has stopped. */
  readonly folder: string;
  log(): string;
  mark(): number;
  waitForLog(pattern: RegExp, options?: WaitOptions): Promise<string>;
  queue(): Promise<QueuedMessage[]>;
  /** Tries all deferred mail now. */
  flush(): Promise<void>;
  waitForQueueEmpty(deadlineMs?: number): Promise<void>;
  /** Through sendmail(1), the way of non_smtpd_milters. */
  sendmail(message: string | Uint8Array, envelope: { from: string; to: readonly string[] }): Promise<void>;
  postsuper(...args: string[]): Promise<void>;
  /** `postfix reload`, with other options if given (the ports stay). */
  reload(options?: PostfixOptions): Promise<void>;
  stop(): Promise<void>;
}

/** A private Postfix with its own configuration, queue and log. */
export async function startPostfix(options: PostfixOptions = {}): Promise<Postfix> {
  await using cleanup = new AsyncDisposableStack();
  const folder = cleanup.use(await privateFolder('postfix'));
  const [smtp, submission] = await Promise.all([freePort(), freePort()]);
  const ports = { smtp, submission };
  const configDirectory = folder.join('conf');
  await mkdir(configDirectory);
  await writeConfig(folder, options, ports);
  await makeQueue(folder);

  const log = new LineLog('postfix');
  const tail = cleanup.use(tailFile(folder.join('mail.log'), log));
  // Not "postfix start", which leaves the master to itself: this one ends with us.
  const master = cleanup.use(
    startProcess(MASTER, ['-c', configDirectory], {
      name: 'postfix master',
      cwd: folder.path,
      ...(options.resolvConf !== undefined && { resolvConf: options.resolvConf }),
    }),
  );
  void endWith(master);
  await waitForLog(/postfix\/master\[\d+\]: daemon started/);

  async function endWith(process: RunningProcess): Promise<void> {
    const { code, signal } = await process.exited;
    tail.poll();
    log.end(signal ?? `exit code ${String(code)}: ${process.output()}`);
  }

  function waitForLog(pattern: RegExp, wait?: WaitOptions): Promise<string> {
    tail.poll();
    return log.waitFor(pattern, wait);
  }

  async function command(program: string, args: readonly string[], input?: string | Uint8Array) {
    const result = await run(program, args, { env: { MAIL_CONFIG: configDirectory }, input: input ?? '' });
    if (result.code !== 0) {
      throw new Error(`${program}: exit code ${String(result.code)}: ${result.stderr}\n${log.excerpt()}`);
    }
    return result.stdout;
  }

  async function queue(): Promise<QueuedMessage[]> {
    return parseQueue(await command('postqueue', ['-c', configDirectory, '-j']));
  }

  async function waitForQueueEmpty(deadlineMs = DEFAULT_DEADLINE_MS): Promise<void> {
    const end = Date.now() + deadlineMs;
    for (;;) {
      const mark = log.mark();
      const left = await queue();
      if (left.length === 0) return;
      // Every message leaves with such a line.
      await waitForLog(/: removed$/, { after: mark, deadlineMs: Math.max(1, end - Date.now()) }).catch(
        (error: unknown) => {
          throw new Error(`still queued: ${JSON.stringify(left)}`, { cause: error });
        },
      );
    }
  }

  async function sendmail(
    message: string | Uint8Array,
    envelope: { from: string; to: readonly string[] },
  ): Promise<void> {
    const args = ['-C', configDirectory, '-i', '-f', envelope.from, '--', ...envelope.to];
    await command('sendmail', args, message);
  }

  async function reload(changed?: PostfixOptions): Promise<void> {
    if (changed !== undefined) await writeConfig(folder, changed, ports);
    const after = log.mark();
    const before = await childrenOf(master.pid);
    master.signal('SIGHUP');
    await waitForLog(/postfix\/master\[\d+\]: reload/, { after });
    await endOf(before, master.pid);
  }

  const owned = cleanup.move();
  return {
    host: '127.0.0.1',
    hostname: options.hostname ?? 'mail.example.test',
    smtpPort: smtp,
    submissionPort: submission,
    configDirectory,
    folder: folder.path,
    log() {
      tail.poll();
      return log.text();
    },
    mark() {
      tail.poll();
      return log.mark();
    },
    waitForLog,
    queue,
    async flush() {
      await command('postqueue', ['-c', configDirectory, '-f']);
    },
    waitForQueueEmpty,
    sendmail,
    async postsuper(...args) {
      await command('postsuper', ['-c', configDirectory, ...args]);
    },
    reload,
    stop: () => owned.disposeAsync(),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

async function writeConfig(
  folder: PrivateFolder,
  options: PostfixOptions,
  ports: PostfixPorts,
): Promise<void> {
  const files = {
    'main.cf': mainCf(folder, options),
    'master.cf': masterCf(options, ports),
    ...tables(options),
  };
  for (const [name, text] of Object.entries(files)) {
    const path = folder.join('conf', name);
    await writeFile(path, text);
    // Postfix reads a file younger than a second again and again, 0.3 s apart, lest it be half written.
    const past = new Date(Date.now() - FILE_AGE_MS);
    await utimes(path, past, past);
  }
}

/** What `postfix check` would create, without the three seconds that it takes. */
async function makeQueue(folder: PrivateFolder): Promise<void> {
  const postfix = await numberOf(['-u', 'postfix']);
  const postdrop = await groupNumber('postdrop');
  await mkdir(folder.join('data'), { mode: 0o755 });
  await chown(folder.join('data'), postfix, 0);
  await mkdir(folder.join('queue'));
  await mkdir(folder.join('queue', 'pid'));
  const owned = async (name: string, group: number, mode: number) => {
    const path = folder.join('queue', name);
    await mkdir(path);
    await chown(path, postfix, group);
    // Not by mkdir: the umask would have its say.
    await chmod(path, mode);
  };
  await Promise.all([
    ...QUEUES.map((name) => owned(name, 0, 0o700)),
    owned('maildrop', postdrop, 0o1730),
    owned('public', postdrop, 0o2710),
  ]);
}

/**
 * Until the idle ones of these processes have ended: one that is about to notice the reload would still serve a client
 * by the old settings. Those with a client stay as long as it does. Nothing reports another's child's end, so it is
 * looked for.
 */
async function endOf(processes: readonly number[], parent: number): Promise<void> {
  const end = Date.now() + RELOAD_DEADLINE_MS;
  while (Date.now() < end) {
    const left = new Set(await childrenOf(parent));
    if (!processes.some((child) => left.has(child))) return;
    await setTimeout(LOOK_AGAIN_MS);
  }
}

async function childrenOf(parent: number): Promise<number[]> {
  const children = await readFile(`/proc/${parent}/task/${parent}/children`, 'utf8');
  return children.split(' ').filter(Boolean).map(Number);
}

async function numberOf(args: readonly string[]): Promise<number> {
  const result = await run('id', args);
  if (result.code !== 0) throw new Error(`id ${args.join(' ')}: ${result.stderr}`);
  return Number(result.stdout);
}

async function groupNumber(group: string): Promise<number> {
  const result = await run('getent', ['group', group]);
  const number = /^[^:]*:[^:]*:(\d+):/.exec(result.stdout)?.[1];
  if (number === undefined) throw new Error(`no group ${group}`);
  return Number(number);
}

function parseQueue(text: string): QueuedMessage[] {
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const message = QUEUE_LINE.parse(JSON.parse(line));
      return {
        queueName: message.queue_name,
        queueId: message.queue_id,
        arrivalTime: message.arrival_time,
        messageSize: message.message_size,
        sender: message.sender === 'MAILER-DAEMON' ? '' : message.sender,
        recipients: message.recipients.map(({ address, delay_reason: delayReason }) => ({
          address,
          ...(delayReason !== undefined && { delayReason }),
        })),
      };
    });
}
