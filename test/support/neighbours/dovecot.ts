import { chown, mkdir, writeFile } from 'node:fs/promises';
import { DEFAULT_DEADLINE_MS } from './deadline.ts';
import { type DovecotOptions, MAIL_UID, dovecotConfig, dovecotPaths, usersFile } from './dovecot-config.ts';
import { privateFolder } from './folder.ts';
import { ImapClient } from './imap.ts';
import { LineLog, type WaitOptions } from './line-log.ts';
import { freePort } from './ports.ts';
import { type RunningProcess, run, startProcess } from './process.ts';

export type { DovecotOptions } from './dovecot-config.ts';

const SAVED = /saved mail to|stored mail into/;

export interface Dovecot extends AsyncDisposable {
  readonly host: '127.0.0.1';
  readonly imapPort: number;
  readonly lmtpPort: number;
  readonly lmtpSocket: string;
  /** Only with `pop3`. */
  readonly pop3Port: number;
  /** Only with a quota: Dovecot's own policy service. */
  readonly quotaStatusPort: number;
  /** For Postfix's `smtpd_sasl_path`. */
  readonly authSocket: string;
  /** The folder of private files; a user's home is `mail/DOMAIN/LOCAL` in it. */
  readonly folder: string;
  imap(user: string): Promise<ImapClient>;
  /** The messages in a folder as IMAP shows them, oldest first; none if there is no such folder. */
  mailbox(user: string, folder?: string): Promise<Buffer[]>;
  /** The folder's messages as soon as there are at least `count`. */
  waitForMessages(user: string, count: number, folder?: string, deadlineMs?: number): Promise<Buffer[]>;
  /** Runs doveadm on this instance. */
  doveadm(...args: string[]): Promise<string>;
  log(): string;
  mark(): number;
  waitForLog(pattern: RegExp, options?: WaitOptions): Promise<string>;
  /** SIGKILL, for all of its processes at once; `start` begins anew on the same mail. */
  kill(): Promise<void>;
  stop(): Promise<void>;
  /** After `stop()`: the same ports, sockets and mail. */
  start(): Promise<void>;
}

/** A private Dovecot with its own users and mail. */
export async function startDovecot(options: DovecotOptions): Promise<Dovecot> {
  await using cleanup = new AsyncDisposableStack();
  const folder = cleanup.use(await privateFolder('dovecot'));
  const paths = dovecotPaths(folder);
  const [imap, lmtp, pop3, quotaStatus] = await Promise.all([freePort(), freePort(), freePort(), freePort()]);
  const ports = { imap, lmtp, pop3, quotaStatus };
  await writeFile(paths.config, dovecotConfig(folder, options, paths, ports));
  await writeFile(paths.users, usersFile(options));
  for (const path of [paths.mail, paths.sieveFolder]) {
    await mkdir(path);
    await chown(path, MAIL_UID, MAIL_UID);
  }
  if (options.sieve !== undefined) await writeFile(paths.sieve, options.sieve);

  const log = new LineLog('dovecot');
  let dovecot: RunningProcess | undefined;

  async function start(): Promise<void> {
    if (dovecot !== undefined) return;
    const after = log.mark();
    log.reopen();
    dovecot = startProcess('dovecot', ['-F', '-c', paths.config], { cwd: folder.path, log });
    await log.waitFor(/master: .*starting up for/, { after });
  }

  async function stop(): Promise<void> {
    const stopping = dovecot;
    dovecot = undefined;
    await stopping?.stop();
  }

  async function kill(): Promise<void> {
    const killed = dovecot;
    dovecot = undefined;
    await killed?.kill();
  }

  function openImap(user: string): Promise<ImapClient> {
    const account = options.users[user];
    if (account === undefined) throw new Error(`dovecot has no user ${user}`);
    const password = typeof account === 'string' ? account : account.password;
    return ImapClient.login(imap, { user, password });
  }

  async function mailbox(user: string, name = 'INBOX'): Promise<Buffer[]> {
    await using client = await openImap(user);
    return (await client.select(name)) === undefined ? [] : await client.messages();
  }

  async function waitForMessages(
    user: string,
    count: number,
    name = 'INBOX',
    deadlineMs = DEFAULT_DEADLINE_MS,
  ): Promise<Buffer[]> {
    const end = Date.now() + deadlineMs;
    await using client = await openImap(user);
    let mark = log.mark();
    let present = await client.select(name);
    while (present === undefined || present < count) {
      const left = end - Date.now();
      if (left <= 0) {
        const found = `${present ?? 0} of ${count} messages in ${user}'s ${name} after ${deadlineMs} ms`;
        throw new Error(`${found}\n${log.excerpt()}`);
      }
      if (present === undefined) {
        await log.waitFor(SAVED, { after: mark, deadlineMs: left }).catch(() => undefined);
        mark = log.mark();
        present = await client.select(name);
      } else {
        const changed = await idleUntilSaved(client, mark, left);
        mark = log.mark();
        present = (await client.noop()) ?? changed ?? present;
      }
    }
    return await client.messages();
  }

  /** Over IDLE a change is told half a second late; the log says at once that LMTP saved something. */
  async function idleUntilSaved(client: ImapClient, after: number, deadlineMs: number) {
    const idling = new AbortController();
    const waiting = new AbortController();
    const stopIdling = () => idling.abort();
    void log.waitFor(SAVED, { after, deadlineMs, signal: waiting.signal }).then(stopIdling, stopIdling);
    try {
      return await client.idle(idling.signal);
    } finally {
      waiting.abort();
    }
  }

  async function doveadm(...args: string[]): Promise<string> {
    const result = await run('doveadm', ['-c', paths.config, ...args]);
    if (result.code !== 0) throw new Error(`doveadm ${args.join(' ')}: ${result.stderr}`);
    return result.stdout;
  }

  // Not stop(): Dovecot's own way takes a second, and its folder goes with it.
  cleanup.defer(async () => dovecot?.kill());
  if (options.sieve !== undefined) await compileSieve(paths.config, paths.sieve);
  await start();

  const owned = cleanup.move();
  return {
    host: '127.0.0.1',
    imapPort: imap,
    lmtpPort: lmtp,
    lmtpSocket: paths.lmtpSocket,
    pop3Port: pop3,
    quotaStatusPort: quotaStatus,
    authSocket: paths.authSocket,
    folder: folder.path,
    imap: openImap,
    mailbox,
    waitForMessages,
    doveadm,
    log: () => log.text(),
    mark: () => log.mark(),
    waitForLog: (pattern, wait) => log.waitFor(pattern, wait),
    stop,
    kill,
    start,
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** Compiled ahead, because delivery runs as a user that may not write beside the script; tells mistakes at once, too. */
async function compileSieve(config: string, script: string): Promise<void> {
  const result = await run('sievec', ['-c', config, script]);
  if (result.code !== 0) throw new Error(`sievec: ${result.stderr}`);
}
