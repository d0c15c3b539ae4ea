import { chown, mkdir, readdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { privateFolder } from './folder.ts';
import { LineLog } from './line-log.ts';
import { freePort } from './ports.ts';
import { type RunningProcess, startProcess } from './process.ts';
import { idsOf } from './users.ts';

const PACKAGED_SITE = '/etc/spamassassin';
const USER = 'debian-spamd';
const START_DEADLINE_MS = 60_000;

/** What a plain SpamAssassin server sets: headers only, and a tagged subject. */
const DEFAULT_LOCAL_CF = ['required_hits 5', 'report_safe 0', 'rewrite_header Subject [SPAM]'];

export interface SpamdOptions {
  /** Further lines of local.cf. */
  readonly localCf?: readonly string[];
  /** Otherwise a free one. */
  readonly port?: number;
  /** Children that scan at the same time. */
  readonly children?: number;
  /** A folder for each user, with his own Bayes database: `bayesPath` says where. */
  readonly perUser?: true;
  /** Rules in place of the packaged ones: it starts in a second, and a message takes a tenth of what it takes else. */
  readonly rules?: readonly string[];
  /** Without --allow-tell: nobody can teach it. */
  readonly refusesTell?: true;
}

export interface Spamd extends AsyncDisposable {
  readonly host: '127.0.0.1';
  readonly port: number;
  readonly socketPath: string;
  /** Its private files, gone when it has stopped. */
  readonly folder: string;
  log(): string;
  waitForLog(pattern: RegExp, options?: { after?: number; deadlineMs?: number }): Promise<string>;
  /** SIGSTOP for it and its children: the kernel takes connections, and nobody answers. */
  freeze(): void;
  thaw(): void;
  /** SIGKILL, for it and its children; `restart` begins anew at the same addresses. */
  kill(): Promise<void>;
  restart(): Promise<void>;
  stop(): Promise<void>;
}

/** A private spamd with the packaged rules, offline, with its own Bayes database, TELL allowed. */
export async function startSpamd(options: SpamdOptions = {}): Promise<Spamd> {
  await using cleanup = new AsyncDisposableStack();
  const folder = cleanup.use(await privateFolder('spamd'));
  const port = options.port ?? (await freePort());
  const site = folder.join('site');
  const home = folder.join('home');
  const sockets = folder.join('sockets');
  await mkdir(site);
  await writeSite(site, [
    ...DEFAULT_LOCAL_CF,
    ...(options.perUser === true ? [] : [`bayes_path ${folder.join('home', 'bayes')}`]),
    ...(options.localCf ?? []),
  ]);
  const owner = await idsOf(USER);
  for (const path of [home, sockets]) {
    await mkdir(path);
    await chown(path, owner.uid, owner.gid);
  }

  const children = options.children ?? 2;
  const socketPath = join(sockets, 'spamd.sock');
  const flags = ['--local', '--nouser-config', '--syslog', 'stderr', '--socketmode', '0666'];
  if (options.refusesTell !== true) flags.push('--allow-tell');
  if (options.perUser === true)
    flags.push('--create-prefs', `--username=${USER}`, `--virtual-config-dir=${home}/%d/%l`);
  const folders = ['--siteconfigpath', site, '--helper-home-dir', home];
  if (options.rules !== undefined) {
    const rules = folder.join('rules');
    await mkdir(rules);
    await writeFile(join(rules, 'rules.cf'), `${options.rules.join('\n')}\n`);
    folders.push('--configpath', rules);
  }
  const listeners = ['--listen', `127.0.0.1:${port}`, '--listen', socketPath];
  const processes = ['--max-children', String(children), '--min-children', '1', '--max-spare', '1'];
  const log = new LineLog('spamd');
  let spamd = await start();
  cleanup.defer(() => spamd.stop());

  async function start(): Promise<RunningProcess> {
    const after = log.mark();
    log.reopen();
    const started = startProcess('spamd', [...flags, ...folders, ...listeners, ...processes], {
      cwd: folder.path,
      env: { HOME: home },
      runAs: { user: USER, group: USER },
      log,
    });
    try {
      await started.waitForLine(/spamd: server started on/, { after, deadlineMs: START_DEADLINE_MS });
    } catch (error) {
      await started.kill();
      throw error;
    }
    return started;
  }

  const owned = cleanup.move();
  return {
    host: '127.0.0.1',
    port,
    socketPath,
    folder: folder.path,
    log: () => log.text(),
    waitForLog: (pattern, wait) => log.waitFor(pattern, wait),
    freeze: () => void process.kill(-spamd.pid, 'SIGSTOP'),
    thaw: () => void process.kill(-spamd.pid, 'SIGCONT'),
    kill: () => spamd.kill(),
    async restart() {
      spamd = await start();
    },
    stop: () => owned.disposeAsync(),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** The packaged plugins with our own local.cf: what the machine's administrator set does not count here. */
async function writeSite(site: string, lines: readonly string[]): Promise<void> {
  const packaged = await readdir(PACKAGED_SITE);
  const plugins = packaged.filter((name) => name.endsWith('.pre'));
  await Promise.all(plugins.map((name) => symlink(join(PACKAGED_SITE, name), join(site, name))));
  await writeFile(join(site, 'local.cf'), `${lines.join('\n')}\n`);
}
