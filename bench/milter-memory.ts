// Memory of the milter with many large messages at once:
//   node bench/milter-memory.ts [CONNECTIONS] [MEBIBYTES]
// Each connection sends one message of that size to a built milter that verifies it, and one that signs it, without and with content rules; all bodies
// are there before the first verdict is asked for. Prints one JSON line each: the most memory the process had, and how much of it before the first message.
import { spawnSync } from 'node:child_process';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { DnsServer } from '../test/support/players/dns-server.ts';
import { holdMessages } from '../test/support/players/milter-hold.ts';
import { freePort } from '../test/support/neighbours/ports.ts';
import { rsaPair } from './corpus.ts';
import { Watched } from './server.ts';

const connections = Number(process.argv[2] ?? 64);
const size = Number(process.argv[3] ?? 50) * 1024 * 1024;
/** Words and patterns that each body is searched for, and that are in none. */
const RULES = `[[checks.content.rule]]
name = "secrets"
direction = "both"
words = ["top secret", "geheim*"]
patterns = ["iban [a-z]{2}[0-9]{20}"]
where = ["subject", "body"]
action = "ignore"
`;
const root = join(import.meta.dirname, '..');

const built = spawnSync('npm', ['run', '--silent', 'build'], { cwd: root, stdio: ['ignore', 2, 2] });
if (built.status !== 0) throw new Error('the build failed: its reason stands above');

const folder = await mkdtemp(join(tmpdir(), 'postern-memory-'));
try {
  const rsa = rsaPair();
  await using dns = await DnsServer.open({ 'TXT sender.example': ['v=spf1 ip4:192.0.2.0/24 -all'] });
  const port = await freePort();
  const key = join(folder, 'rsa.pem');
  await writeFile(key, rsa.privateKey.export({ type: 'pkcs8', format: 'pem' }), { mode: 0o600 });
  // Quarantine in a folder of our own: only then, or with a scanner, is a body kept at all.
  const configure = (rules: boolean): Promise<void> =>
    writeFile(
      join(folder, 'postern.toml'),
      `dns.servers = ["127.0.0.1:${dns.port}"]
site.hostname = "mx.example.org"
state.folder = ${JSON.stringify(join(folder, 'state'))}
milter.listen = "127.0.0.1:${port}"
spamd.enabled = false
clamd.enabled = false
quarantine.where = "folder"
rules."spf.fail" = "quarantine"
${rules ? RULES : ''}[[signing.key]]
domain = "rsa.example"
selector = "bench"
file = ${JSON.stringify(key)}
`,
    );
  const bin = join(root, 'bin/postern');
  const args = ['run', 'milter', '--admin', 'none', '--config', join(folder, 'postern.toml')];
  const scenarios = [false, true].flatMap((rules) =>
    (['in', 'out'] as const).map((direction) => ({ rules, direction })),
  );
  for (const { rules, direction } of scenarios) {
    await configure(rules);
    await using server = await Watched.startProgram(bin, args, '"msg":"ready"');
    const before = server.memory();
    let files: readonly string[] = [];
    const verdicts = await holdMessages({ port, connections, size, direction }, async () => {
      files = (await readdir(join(folder, 'state'))).filter((name) => name.startsWith('spool'));
    });
    console.log(
      JSON.stringify({
        direction,
        rules,
        connections,
        mebibytes: size / 1024 / 1024,
        beforeMiB: before,
        peakRssMiB: server.peakMemory(),
        verdicts: Object.fromEntries(
          Map.groupBy(verdicts, (verdict) => verdict)
            .entries()
            .map(([v, list]) => [v, list.length]),
        ),
        namedSpoolFiles: files.length,
      }),
    );
  }
} finally {
  await rm(folder, { recursive: true, force: true });
}
