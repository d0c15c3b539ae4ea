import { chown, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { idsOf } from './users.ts';
import { privateFolder } from './folder.ts';
import { freePort } from './ports.ts';
import { startProcess } from './process.ts';

const USER = 'clamav';
const START_DEADLINE_MS = 60_000;

/** The test file that every scanner knows, in two pieces: as a whole it would make scanners remove this file. */
export const EICAR = ['X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR', '-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*'].join('');
export const EICAR_NAME = 'Eicar-Test-Signature';
/** What our own signature takes for an unwanted program. */
export const UNWANTED = 'a-quite-unwanted-toolbar-for-mortals';
export const UNWANTED_NAME = 'PUA.Test.Toolbar';

export interface ClamdOptions {
  /** Octets of one stream. */
  readonly streamMaxLength?: number;
  /** Further lines of clamd.conf. */
  readonly conf?: readonly string[];
}

export interface Clamd extends AsyncDisposable {
  readonly host: '127.0.0.1';
  readonly port: number;
  readonly socketPath: string;
  readonly pid: number;
  log(): string;
  waitForLog(pattern: RegExp, options?: { after?: number; deadlineMs?: number }): Promise<string>;
  /** SIGSTOP: it takes connections, as far as the kernel does, and answers nothing. */
  freeze(): void;
  thaw(): void;
  stop(): Promise<void>;
  kill(): Promise<void>;
}

/** A private clamd with two signatures of our own: the real ones are not in Debian's packages. */
export async function startClamd(options: ClamdOptions = {}): Promise<Clamd> {
  await using cleanup = new AsyncDisposableStack();
  const folder = cleanup.use(await privateFolder('clamd'));
  const port = await freePort();
  const owner = await idsOf(USER);
  const run = folder.join('run');
  const database = folder.join('database');
  await mkdir(run);
  await mkdir(database);
  await chown(run, owner.uid, owner.gid);
  await writeFile(
    join(database, 'local.ndb'),
    `${signature(EICAR_NAME, EICAR)}${signature(UNWANTED_NAME, UNWANTED)}`,
  );
  const socketPath = join(run, 'clamd.sock');
  const lines = [
    'Foreground yes',
    `LocalSocket ${socketPath}`,
    'LocalSocketMode 666',
    'TCPAddr 127.0.0.1',
    `TCPSocket ${port}`,
    `DatabaseDirectory ${database}`,
    `TemporaryDirectory ${run}`,
    `StreamMaxLength ${options.streamMaxLength ?? 26_214_400}`,
    'DetectPUA yes',
    'SelfCheck 0',
    ...(options.conf ?? []),
  ];
  await writeFile(folder.join('clamd.conf'), `${lines.join('\n')}\n`);
  const clamd = cleanup.use(
    startProcess('clamd', ['--config-file', folder.join('clamd.conf'), '--foreground'], {
      cwd: run,
      runAs: { user: USER, group: USER },
    }),
  );
  await clamd.waitForLine(/Self checking disabled|Listening daemon/, { deadlineMs: START_DEADLINE_MS });

  const owned = cleanup.move();
  return {
    host: '127.0.0.1',
    port,
    socketPath,
    pid: clamd.pid,
    log: () => clamd.output(),
    waitForLog: (pattern, wait) => clamd.waitForLine(pattern, wait),
    freeze: () => clamd.signal('SIGSTOP'),
    thaw: () => clamd.signal('SIGCONT'),
    kill: () => clamd.kill(),
    stop: () => owned.disposeAsync(),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** `name:target type:offset:hexadecimal` of an extended signature: any kind of file, anywhere in it. */
function signature(name: string, text: string): string {
  return `${name}:0:*:${Buffer.from(text, 'latin1').toString('hex')}\n`;
}
