import { execFileSync } from 'node:child_process';
import { chmod, chown, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { privateFolder, type PrivateFolder } from '../test/support/neighbours/folder.ts';
import { freePort } from '../test/support/neighbours/ports.ts';
import { startProcess } from '../test/support/neighbours/process.ts';
import { idsOf } from '../test/support/neighbours/users.ts';
import { LmtpClient } from '../test/support/players/lmtp-client.ts';
import { content, sample } from './corpus.ts';
import { endTree, eventually, startOurs, sum } from './peers.ts';
import { cpuOf, figuresOf, type Figures } from './server.ts';

const PACKAGES = ['dovecot-core', 'dovecot-lmtpd', 'amavisd-new'];
const CONNECTIONS = [1, 8, 64];
const WARM_MS = 2000;
const STUCK_MS = 60_000;
const RECIPIENT = 'bob@example.org';
const OURS = 'postern';
/** The owner of the mail that Dovecot delivers, without an entry in /etc/passwd. */
const MAIL_UID = 5000;

interface Site {
  readonly folder: PrivateFolder;
  /** Where it is to listen, on loopback. */
  readonly port: number;
  /** Where the bare sink listens, which takes every message. */
  readonly sinkPort: number;
}

interface Server {
  readonly name: string;
  /** Connections that it takes at once, where those are few. */
  readonly most?: number;
  /** Its pid. */
  start(site: Site): Promise<number>;
}

/** CPU time is that of the server and all its processes. */
export interface LmtpMeasured extends Figures {
  readonly name: string;
  readonly connections: number;
}

export interface LmtpPeersBench {
  /** Of one measurement. */
  readonly seconds: number;
  readonly only: string;
  readonly told: (measured: LmtpMeasured) => void;
}

/** Ours and Debian's, one after the other, with 2 KiB messages to one recipient. Needs Debian and root. */
export async function benchLmtpPeers({ seconds, only, told }: LmtpPeersBench): Promise<void> {
  const chosen = SERVERS.filter(({ name }) => `lmtp, ${name}`.includes(only));
  if (chosen.length === 0) return;
  execFileSync('bash', [join(import.meta.dirname, '../scripts/debian.sh'), ...PACKAGES], {
    stdio: ['ignore', 2, 2],
  });
  for (const server of chosen) {
    await using folder = await privateFolder(`bench-${server.name.replaceAll(' ', '-')}`);
    const sinkPort = await freePort();
    const sink = startProcess(process.execPath, [join(import.meta.dirname, 'sink.ts'), String(sinkPort)]);
    try {
      await sink.waitForLine(/ready/);
      const port = server.name === BARE ? sinkPort : await freePort();
      const pid = server.name === BARE ? sink.pid : await server.start({ folder, port, sinkPort });
      try {
        await eventually(async () => {
          await (await LmtpClient.open({ port })).quit();
          return true;
        });
        // These are daemons: what counts is what they do after the first thousands of messages.
        await measure(pid, port, 8, seconds);
        for (const connections of CONNECTIONS.filter((count) => count <= (server.most ?? Infinity)))
          told({ name: server.name, connections, ...(await measure(pid, port, connections, seconds)) });
      } finally {
        if (server.name !== BARE) await endTree(pid);
      }
    } finally {
      await sink.stop();
    }
  }
}

async function measure(pid: number, port: number, connections: number, seconds: number): Promise<Figures> {
  const clients = await Promise.all(
    Array.from({ length: connections }, () => LmtpClient.open({ port }, 'mx.example.org')),
  );
  const bytes = content(sample('2 KiB', 2048, 'sender.example'));
  let sent = 0;
  const times: number[] = [];
  const pass = (until: number, keep: boolean): Promise<unknown> =>
    Promise.all(
      clients.map(async (client) => {
        do {
          const begun = performance.now();
          const outcome = await client.send({
            from: '<alice@sender.example>',
            to: [`<${RECIPIENT}>`],
            content: bytes,
            // As Postfix says of mail from this host: nothing is checked, so that the figure is that of the filter itself.
            forward: { IDENT: `L${(sent += 1)}`, SOURCE: 'LOCAL' },
          });
          if (outcome.delivered[0]?.startsWith('250') !== true)
            throw new Error(`unexpected outcome: ${JSON.stringify(outcome)}`);
          if (keep) times.push(performance.now() - begun);
        } while (performance.now() < until);
      }),
    );
  const stuck = setTimeout(
    () => {
      for (const client of clients) void client[Symbol.asyncDispose]();
    },
    WARM_MS + seconds * 1000 + STUCK_MS,
  );
  try {
    await pass(performance.now() + WARM_MS, false);
    const cpu = sum(pid, cpuOf);
    const begun = performance.now();
    await pass(begun + seconds * 1000, true);
    const elapsed = (performance.now() - begun) / 1000;
    const spent = sum(pid, cpuOf) - cpu;
    await Promise.all(clients.map((client) => client.quit()));
    return figuresOf(times, elapsed, spent);
  } finally {
    clearTimeout(stuck);
  }
}

export function lmtpTable(measured: readonly LmtpMeasured[]): string {
  const rows = measured.map((one) => {
    const mine = measured.find(({ name, connections }) => name === OURS && connections === one.connections);
    const times =
      mine === undefined || mine === one ? '' : `${(mine.perSecond / one.perSecond).toFixed(1)} ×`;
    return `| ${one.connections} | ${one.name} | ${one.perSecond} | ${one.cpuMicroseconds} | ${one.p50Ms} | ${one.p99Ms} | ${times} |`;
  });
  return [
    '\n| connections | LMTP server | per second | CPU µs | p50 ms | p99 ms | Postern does |',
    '|--:|---|--:|--:|--:|--:|--:|',
    ...rows,
  ].join('\n');
}

const BARE = 'bare sink';

const SERVERS: readonly Server[] = [
  {
    // What the least LMTP server in Node costs tells how fast the machine is.
    name: BARE,
    start: () => Promise.reject(new Error('it runs already')),
  },
  {
    name: OURS,
    async start({ folder, port, sinkPort }) {
      const file = folder.join('postern.toml');
      await writeFile(
        file,
        [
          'site.hostname = "mx.example.org"',
          `state.folder = ${JSON.stringify(folder.join('state'))}`,
          `lmtp-filter.listen = "127.0.0.1:${port}"`,
          `lmtp-filter.upstream = "127.0.0.1:${sinkPort}"`,
          'spamd.enabled = false',
          'clamd.enabled = false',
          '',
        ].join('\n'),
      );
      return startOurs('lmtp-filter', file);
    },
  },
  {
    // It does another's work: it writes the mail to disk.
    name: "Dovecot's LMTP",
    start: async ({ folder, port }) => {
      const mail = folder.join('mail');
      await mkdir(mail);
      await chown(mail, MAIL_UID, MAIL_UID);
      return dovecot(
        folder,
        port,
        `passdb {
  driver = static
  args = nopassword=y
}
userdb {
  driver = static
  args = uid=${MAIL_UID} gid=${MAIL_UID} home=${mail}/%u allow_all_users=yes
}`,
      );
    },
  },
  {
    name: "Dovecot's LMTP proxy",
    start: ({ folder, port, sinkPort }) =>
      dovecot(
        folder,
        port,
        `lmtp_proxy = yes
passdb {
  driver = static
  args = proxy=y host=127.0.0.1 port=${sinkPort} nopassword=y
}`,
      ),
  },
  {
    name: 'amavisd-new',
    // A process for each, of 100 MiB.
    most: 8,
    async start({ folder, port, sinkPort }) {
      const owner = await idsOf('amavis');
      // It starts only when it may not write where its configuration is.
      await chmod(folder.path, 0o755);
      const work = folder.join('work');
      await mkdir(work);
      await chown(work, owner.uid, owner.gid);
      const file = folder.join('amavisd.conf');
      await writeFile(
        file,
        `use strict;
$MYHOME = '${work}'; $TEMPBASE = $MYHOME; $db_home = $MYHOME; $QUARANTINEDIR = undef; $helpers_home = $MYHOME;
$pid_file = "$MYHOME/amavisd.pid"; $lock_file = "$MYHOME/amavisd.lock";
$daemon_user = 'amavis'; $daemon_group = 'amavis'; $daemonize = 0;
$myhostname = 'mx.example.org'; $mydomain = 'example.org';
@bypass_virus_checks_maps = (1); @bypass_spam_checks_maps = (1); @bypass_banned_checks_maps = (1); @bypass_header_checks_maps = (1);
$bypass_decode_parts = 1; $enable_db = 0; $enable_zmq = 0; $nanny_details_level = 0; $do_syslog = 0; $log_level = 0; $enable_dkim_verification = 0;
@mynetworks = qw(127.0.0.0/8); @inet_acl = qw(127.0.0.1); $max_servers = 8;
$inet_socket_bind = '127.0.0.1'; $inet_socket_port = ${port};
$forward_method = 'lmtp:[127.0.0.1]:${sinkPort}'; $notify_method = $forward_method;
$final_virus_destiny = D_PASS; $final_spam_destiny = D_PASS; $final_banned_destiny = D_PASS; $final_bad_header_destiny = D_PASS;
1;
`,
      );
      return startProcess('/usr/sbin/amavisd', ['-c', file, 'foreground'], { cwd: folder.path }).pid;
    },
  },
];

async function dovecot(folder: PrivateFolder, port: number, users: string): Promise<number> {
  const file = folder.join('dovecot.conf');
  await writeFile(
    file,
    `base_dir = ${folder.join('run')}
state_dir = ${folder.join('state')}
log_path = ${folder.join('log')}
protocols = lmtp
listen = 127.0.0.1
ssl = no
mail_location = maildir:~/Maildir
first_valid_uid = ${MAIL_UID}
service lmtp {
  # As many processes as connections, and no new ones for each.
  process_min_avail = 8
  process_limit = 100
  inet_listener lmtp {
    port = ${port}
  }
}
${users}
`,
  );
  await Promise.resolve();
  return startProcess('dovecot', ['-F', '-c', file], { cwd: folder.path }).pid;
}
