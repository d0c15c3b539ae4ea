import { chown, mkdir, writeFile } from 'node:fs/promises';

import type { DatabaseServer, ServerCertificate } from './database.ts';
import { privateFolder } from './folder.ts';
import { LineLog } from './line-log.ts';
import { freePort } from './ports.ts';
import { run, startProcess, type RunningProcess } from './process.ts';
import { idsOf } from './users.ts';

const ACCOUNT = { user: 'openldap', group: 'openldap' };

export interface SlapdOptions {
  /** The naming context, such as `dc=olimpus,dc=example`. */
  readonly suffix: string;
  /** Entries in LDIF. */
  readonly entries: string;
  readonly tls?: ServerCertificate;
  /** Further attributes and classes, as slapd.conf(5) defines them. */
  readonly schema?: string;
}

export interface Slapd
  extends
    Pick<DatabaseServer, 'port' | 'socketPath' | 'kill' | 'restart' | 'freeze' | 'thaw' | 'log'>,
    AsyncDisposable {
  /** For ldaps; 0 without `tls`. */
  readonly securePort: number;
}

export const SLAPD_PASSWORD = 'the trident of poseidon';

/** A private slapd with entries of cosine, nis and inetOrgPerson. Nobody reads without the name `cn=admin,SUFFIX`. */
export async function startSlapd(options: SlapdOptions): Promise<Slapd> {
  await using cleanup = new AsyncDisposableStack();
  const folder = cleanup.use(await privateFolder('slapd'));
  const { uid, gid } = await idsOf(ACCOUNT.user);
  const base = folder.join('base');
  const data = folder.join('base', 'data');
  for (const path of [base, data]) {
    await mkdir(path);
    await chown(path, uid, gid);
  }
  const [port, securePort] = [await freePort(), options.tls === undefined ? 0 : await freePort()];
  const socketPath = `${base}/ldapi`;
  const config = folder.join('slapd.conf');
  const { tls, suffix } = options;
  const lines = [
    ...['core', 'cosine', 'nis', 'inetorgperson'].map((name) => `include /etc/ldap/schema/${name}.schema`),
    'modulepath /usr/lib/ldap',
    'moduleload back_mdb',
    ...(tls === undefined
      ? []
      : [
          `TLSCertificateFile ${tls.certificate}`,
          `TLSCertificateKeyFile ${tls.key}`,
          `TLSCACertificateFile ${tls.ca}`,
        ]),
    ...(options.schema === undefined ? [] : [options.schema]),
    'database mdb',
    `suffix "${suffix}"`,
    `rootdn "cn=admin,${suffix}"`,
    `rootpw "${SLAPD_PASSWORD}"`,
    `directory ${data}`,
    'maxsize 33554432',
    'access to * by anonymous auth by * none',
  ];
  await writeFile(config, `${lines.join('\n')}\n`);
  const added = await run('/usr/sbin/slapadd', ['-f', config], {
    input: options.entries,
    runAs: ACCOUNT,
    deadlineMs: 60_000,
  });
  if (added.code !== 0) throw new Error(`slapadd: ${added.stderr}`);

  const log = new LineLog('slapd');
  const start = async (after: number): Promise<RunningProcess> => {
    const urls = [
      `ldap://127.0.0.1:${port}/`,
      `ldapi://${encodeURIComponent(socketPath)}/`,
      ...(tls === undefined ? [] : [`ldaps://127.0.0.1:${securePort}/`]),
    ];
    // A debug level keeps it in the foreground; 256 tells of each operation.
    const args = ['-f', config, '-h', urls.join(' '), '-d', '256'];
    const started = startProcess('/usr/sbin/slapd', args, { name: 'slapd', log, runAs: ACCOUNT });
    await started.waitForLine(/slapd starting/, { after, deadlineMs: 60_000 });
    return started;
  };
  let server = await start(0);
  cleanup.defer(() => server.stop());

  const owned = cleanup.move();
  return {
    port,
    securePort,
    socketPath,
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
