// `npm run bench`: what one request or message costs each daemon. JSON lines on standard output, a table on standard error.
//   npm run bench -- [--quick] [--only TEXT] [--profile FOLDER] [--peers]
// --only: rows whose name has this in it. --profile: a .cpuprofile of each daemon. --peers: policyd beside Debian's policy servers, the milter
// beside Debian's milters, and lmtp-filter beside Dovecot and amavisd-new (Debian 12 and root).
import { spawnSync } from 'node:child_process';
import { writeFile, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

import { DnsServer } from '../test/support/players/dns-server.ts';
import { LmtpClient } from '../test/support/players/lmtp-client.ts';
import { MilterClient, type MilterMail } from '../test/support/players/milter-client.ts';
import { freePort } from '../test/support/neighbours/ports.ts';
import { content, ed25519Pair, rsaPair, sample, sealed, signed, type Sample } from './corpus.ts';
import { benchLmtpPeers, lmtpTable, type LmtpMeasured } from './lmtp-peers.ts';
import { benchMilterPeers, milterTable, type MilterMeasured } from './milter-peers.ts';
import { benchPeers, comparison } from './peers.ts';
import { policyTable } from './policy-table.ts';
import { benchPolicyd, type Measured } from './policyd.ts';
import { benchScoring } from './scoring.ts';
import { figuresOf, Watched, type Figures } from './server.ts';

const { values: options } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    only: { type: 'string', default: '' },
    profile: { type: 'string', default: '' },
    peers: { type: 'boolean', default: false },
  },
});
const SCALE = options.quick ? 0.1 : 1;

interface Scenario {
  readonly name: string;
  readonly connections: number;
  /** Requests or messages in all. */
  readonly count: number;
  /** Opens one connection and returns what sends one request or message on it, and what closes it. */
  open(index: number): Promise<{ one: (n: number) => Promise<void>; close: () => Promise<void> }>;
}

interface Result extends Figures {
  readonly name: string;
  readonly connections: number;
  /** Highest so far, in this run of the server. */
  readonly peakRssMiB: number;
}

// What is measured is what would be installed.
const built = spawnSync('npm', ['run', '--silent', 'build'], {
  cwd: join(import.meta.dirname, '..'),
  stdio: ['ignore', 2, 2],
});
if (built.status !== 0) throw new Error('the build failed: its reason stands above');

const folder = await mkdtemp(join(tmpdir(), 'postern-bench-'));
const rsa = rsaPair();
const ed = ed25519Pair();
const keyFile = async (name: string, pair: typeof rsa): Promise<string> => {
  const path = join(folder, name);
  await writeFile(path, pair.privateKey.export({ type: 'pkcs8', format: 'pem' }), { mode: 0o600 });
  return path;
};
const ports = {
  milter: await freePort(),
  lmtp: await freePort(),
  sink: await freePort(),
};

await using dns = await DnsServer.open({
  'TXT sender.example': ['v=spf1 ip4:192.0.2.0/24 -all'],
  'TXT _dmarc.sender.example': ['v=DMARC1; p=reject'],
  'TXT bench._domainkey.sender.example': [rsa.record],
});
await writeFile(
  join(folder, 'postern.toml'),
  `
dns.servers = ["127.0.0.1:${dns.port}"]
site.hostname = "mx.example.org"
state.folder = ${JSON.stringify(join(folder, 'state'))}
milter.listen = "127.0.0.1:${ports.milter}"
lmtp-filter.listen = "127.0.0.1:${ports.lmtp}"
lmtp-filter.upstream = "127.0.0.1:${ports.sink}"
spamd.enabled = false
log.level = "info"
[[signing.key]]
domain = "rsa.example"
selector = "bench"
file = ${JSON.stringify(await keyFile('rsa.pem', rsa))}
[[signing.key]]
domain = "ed.example"
selector = "bench"
file = ${JSON.stringify(await keyFile('ed.pem', ed))}
`,
);

function milter(name: string, mail: Sample, outgoing: boolean, count: number, expect: RegExp): Scenario {
  return {
    name,
    connections: 8,
    count,
    open: async (index) => {
      const client = await MilterClient.open({ port: ports.milter });
      const domain = /@([^>]+)>/.exec(mail.headers.find(([field]) => field === 'From')?.[1] ?? '')?.[1] ?? '';
      const message: MilterMail = {
        address: '192.0.2.9',
        port: 30_000 + index,
        host: 'mx.sender.example',
        helo: 'mx.sender.example',
        ...(outgoing ? { login: 'alice', daemonName: 'ORIGINATING' } : {}),
        queueId: '',
        from: `<alice@${domain}>`,
        to: ['<bob@example.org>'],
        headers: mail.headers,
        body: mail.body,
      };
      await client.begin(message);
      const one = async (n: number): Promise<void> => {
        const { verdict, edits } = await client.message({ ...message, queueId: `Q${index}n${n}` });
        const added = edits.map((edit) => `${edit.name}:${edit.value}`).join('\n');
        if (!'ca'.includes(verdict) || !expect.test(added))
          throw new Error(`unexpected answer ${verdict}: ${added}`);
      };
      const close = async (): Promise<void> => {
        client.quit();
        await Promise.resolve();
      };
      return { one, close };
    },
  };
}

function lmtp(name: string, mail: Sample, count: number): Scenario {
  return {
    name,
    connections: 8,
    count,
    open: async (index) => {
      const client = await LmtpClient.open({ port: ports.lmtp });
      const bytes = content(mail);
      const one = async (n: number): Promise<void> => {
        // As Postfix says of mail from this host: nothing is checked, so that the figure is that of the filter itself.
        const forward = { IDENT: `L${index}n${n}`, SOURCE: 'LOCAL' };
        const outcome = await client.send({
          from: '<alice@sender.example>',
          to: ['<bob@example.org>'],
          content: bytes,
          forward,
        });
        if (outcome.delivered[0]?.startsWith('250') !== true)
          throw new Error(`unexpected outcome: ${JSON.stringify(outcome)}`);
      };
      return { one, close: () => client.quit() };
    },
  };
}

async function measure(server: Watched, scenario: Scenario): Promise<Result> {
  const count = Math.max(scenario.connections, Math.round(scenario.count * SCALE));
  const clients = await Promise.all(
    Array.from({ length: scenario.connections }, (_, index) => scenario.open(index)),
  );
  const warm = Math.ceil(count / 20 / scenario.connections);
  let started = 0;
  const times: number[] = [];
  const pass = async (rounds: number, keep: boolean): Promise<void> => {
    await Promise.all(
      clients.map(async ({ one }) => {
        for (let i = 0; i < rounds; i++) {
          const begun = performance.now();
          await one((started += 1));
          if (keep) times.push(performance.now() - begun);
        }
      }),
    );
  };
  await pass(warm, false);
  const cpu = server.cpu();
  const begun = performance.now();
  await pass(Math.ceil(count / scenario.connections), true);
  const seconds = (performance.now() - begun) / 1000;
  const spent = server.cpu() - cpu;
  await Promise.all(clients.map(({ close }) => close()));
  return {
    name: scenario.name,
    connections: scenario.connections,
    ...figuresOf(times, seconds, spent),
    peakRssMiB: server.peakMemory(),
  };
}

const small = sample('2 KiB', 2048, 'sender.example');
const medium = sample('50 KiB', 50 * 1024, 'sender.example');
const large = sample('5 MiB', 5 * 1024 * 1024, 'sender.example');
const from = (mail: Sample, domain: string): Sample => sample(mail.name, mail.body.length + 300, domain);
const AUTH = /dkim=pass[\s\S]*dmarc=pass/;
const SIGNED = /^DKIM-Signature:/m;

const scenarios: readonly Scenario[] = [
  milter('milter, verify, 2 KiB', await signed(small, 'sender.example', rsa), false, 6000, AUTH),
  milter(
    'milter, verify with ARC, 2 KiB',
    await sealed(await signed(small, 'sender.example', rsa), 'sender.example', rsa),
    false,
    6000,
    /dkim=pass[\s\S]*arc=pass[\s\S]*dmarc=pass/,
  ),
  milter('milter, verify, 50 KiB', await signed(medium, 'sender.example', rsa), false, 2000, AUTH),
  milter('milter, verify, 5 MiB', await signed(large, 'sender.example', rsa), false, 48, AUTH),
  milter('milter, sign RSA-2048, 2 KiB', from(small, 'rsa.example'), true, 6000, SIGNED),
  milter('milter, sign RSA-2048, 50 KiB', from(medium, 'rsa.example'), true, 2000, SIGNED),
  milter('milter, sign RSA-2048, 5 MiB', from(large, 'rsa.example'), true, 48, SIGNED),
  milter('milter, sign Ed25519, 2 KiB', from(small, 'ed.example'), true, 6000, SIGNED),
  lmtp('lmtp-filter, 2 KiB', small, 6000),
  lmtp('lmtp-filter, 50 KiB', medium, 2000),
  lmtp('lmtp-filter, 5 MiB', large, 48),
];

/** Requests of one measurement of a policy server. */
const REQUESTS = 20_000 * SCALE;
const policies: Measured[] = [];
const told = (measured: Measured): void => {
  console.log(JSON.stringify(measured));
  policies.push(measured);
};

try {
  const { only, profile } = options;
  await benchPolicyd({ folder, dnsPort: dns.port, requests: REQUESTS, only, profile, told });
  if (options.peers) await benchPeers({ dnsPort: dns.port, requests: REQUESTS, only, told });
  const milters: MilterMeasured[] = [];
  const servers: LmtpMeasured[] = [];
  if (options.peers) {
    const seconds = options.quick ? 1 : 5;
    const toldOf = (measured: MilterMeasured): void => {
      console.log(JSON.stringify(measured));
      milters.push(measured);
    };
    await benchMilterPeers({ dnsPort: dns.port, rsa, seconds, only, told: toldOf });
    const lmtpTold = (measured: LmtpMeasured): void => {
      console.log(JSON.stringify(measured));
      servers.push(measured);
    };
    await benchLmtpPeers({ seconds, only, told: lmtpTold });
  }
  const scoring = { folder, dnsPort: dns.port, messages: 6000 * SCALE, only, profile };
  for (const scored of options.peers ? [] : await benchScoring(scoring)) console.log(JSON.stringify(scored));
  const results = options.peers ? [] : await benchMail();
  if (policies.length > 0) console.error(policyTable(policies));
  if (options.peers) console.error(comparison(policies));
  if (milters.length > 0) console.error(milterTable(milters));
  if (servers.length > 0) console.error(lmtpTable(servers));
  if (results.length > 0) console.error(mailTable(results));
} finally {
  await rm(folder, { recursive: true, force: true });
}

/** milter and lmtp-filter: a server for each, so that the peak of memory is that daemon's own. */
async function benchMail(): Promise<readonly Result[]> {
  const results: Result[] = [];
  const chosen = scenarios.filter(({ name }) => name.includes(options.only));
  if (chosen.length === 0) return results;
  await using cleanup = new AsyncDisposableStack();
  cleanup.use(await Watched.start([join(import.meta.dirname, 'sink.ts'), String(ports.sink)], 'ready'));
  for (const daemon of ['milter', 'lmtp-filter']) {
    const mine = chosen.filter(({ name }) => name.startsWith(daemon));
    if (mine.length === 0) continue;
    await using server = await Watched.startPostern(daemon, join(folder, 'postern.toml'), options.profile);
    for (const scenario of mine) {
      const result = await measure(server, scenario);
      console.log(JSON.stringify(result));
      results.push(result);
    }
  }
  return results;
}

function mailTable(results: readonly Result[]): string {
  const rows = results.map(
    (r) =>
      `| ${r.name} | ${r.connections} | ${r.count} | ${r.perSecond} | ${r.cpuMicroseconds} | ${r.p50Ms} | ${r.p99Ms} | ${r.peakRssMiB} |`,
  );
  return [
    '\n| scenario | connections | count | per second | CPU µs | p50 ms | p99 ms | peak RSS MiB |',
    '|---|--:|--:|--:|--:|--:|--:|--:|',
    ...rows,
  ].join('\n');
}
