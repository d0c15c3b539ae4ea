// `npm run demo`: Postern between a real Postfix, Dovecot and spamd, judging real mail. See README.md.
//   npm run demo             stays up after the report, until Ctrl-C
//   npm run demo -- --once   ends after the report; the exit code says whether everything came out as expected
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs, styleText } from 'node:util';

import { z } from 'zod';

import { debianPackages, neighboursAvailable } from '../test/support/neighbours/available.ts';
import { run } from '../test/support/neighbours/process.ts';
import type { Driver } from './demo/driver.ts';
import { demoMails, type DemoMail } from './demo/mails.ts';
import { startPlayed } from './demo/played.ts';
import { startReal } from './demo/real.ts';
import { report, type Happened, type RecordedDecision } from './demo/report.ts';
import { setStage, type Stage } from './demo/stage.ts';

const ROOT = join(import.meta.dirname, '..');
const POSTERN = join(ROOT, 'bin/postern');
const NEIGHBOURS = ['postfix', 'dovecot', 'spamd'] as const;
const RECORD_DEADLINE_MS = 10_000;

const DECISION = z.object({
  daemon: z.string(),
  trace: z.string(),
  sender: z.string(),
  recipients: z.array(z.string()),
  verdict: z.string(),
  rule: z.string(),
  why: z.string(),
  score: z.number().nullable(),
});

function say(line: string): void {
  console.log(styleText('dim', line));
}

async function neighbours(): Promise<Driver> {
  say('looking for the Debian packages of Postfix, Dovecot and SpamAssassin …');
  const packages = debianPackages(NEIGHBOURS);
  const setup = spawnSync('bash', [join(ROOT, 'scripts/debian.sh'), ...packages], {
    stdio: ['ignore', 'inherit', 'pipe'],
  });
  const available = neighboursAvailable(NEIGHBOURS);
  if (setup.status === 0 && available.ok) return startReal(say);
  const reason =
    setup.status === 0 && !available.ok ? available.reason : setup.stderr.toString('utf8').trim();
  console.log(`\nPostfix, Dovecot and SpamAssassin can't be installed or started here: ${reason}`);
  console.log(
    'Their side of the three sockets is played by this script instead; nothing is scored, as there is no spamd.\n',
  );
  return startPlayed();
}

async function decisions(stage: Stage): Promise<RecordedDecision[]> {
  const { code, stdout, stderr } = await run(POSTERN, ['history', '--json', '--config', stage.configFile]);
  if (code !== 0) throw new Error(`postern history ended with ${code}: ${stderr}`);
  return stdout
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => DECISION.parse(JSON.parse(line)))
    .toReversed();
}

/** The decisions about this mail; they are written in batches, so the expected one is waited for. */
async function decisionsAbout(mail: DemoMail, stage: Stage, known: number): Promise<RecordedDecision[]> {
  const until = performance.now() + RECORD_DEADLINE_MS;
  for (;;) {
    const fresh = (await decisions(stage)).slice(known);
    const { daemon, verdict } = mail.expect.decision;
    const complete =
      daemon === 'policyd' || fresh.filter((one) => one.daemon === 'lmtp-filter').length >= mail.to.length;
    if (complete && fresh.some((one) => one.daemon === daemon && one.verdict === verdict)) return fresh;
    if (performance.now() > until) return fresh;
    await delay(100);
  }
}

async function play(driver: Driver, stage: Stage): Promise<number> {
  let failures = 0;
  let known = 0;
  for (const [index, mail] of (await demoMails(stage.friendKey, driver.spamd !== null)).entries()) {
    const replies = await driver.send(mail);
    const delivered = new Map<string, string | null>();
    for (const recipient of mail.to) delivered.set(recipient, await driver.collect(recipient));
    const about = await decisionsAbout(mail, stage, known);
    known += about.length;
    const happened: Happened = { replies, delivered, decisions: about };
    failures += report(index + 1, mail, happened).length === 0 ? 0 : 1;
  }
  return failures;
}

const { values: options } = parseArgs({ options: { once: { type: 'boolean', default: false } } });

say('building …');
if (spawnSync('npm', ['run', '--silent', 'build'], { cwd: ROOT, stdio: 'inherit' }).status !== 0)
  process.exit(1);

const interrupted = Promise.withResolvers<void>();
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => interrupted.resolve());

let failures: number;
{
  await using driver = await neighbours();
  say('starting Postern …');
  await using stage = await setStage({ upstream: driver.upstream, spamd: driver.spamd });
  await driver.connect(stage);
  say(
    `policyd 127.0.0.1:${stage.port.policyd}, milter 127.0.0.1:${stage.port.milter}, lmtp-filter 127.0.0.1:${stage.port['lmtp-filter']}`,
  );
  failures = await play(driver, stage);
  console.log(
    failures === 0
      ? '\nAll five came out as expected.'
      : `\n${failures} of five did NOT come out as expected.`,
  );
  if (!options.once) {
    console.log(`\n${driver.how(stage).join('\n')}`);
    console.log(`Metrics: http://127.0.0.1:${stage.port.admin}/metrics`);
    console.log(`History: bin/postern history --config ${stage.configFile}`);
    console.log('Ctrl-C ends it all.');
    await Promise.race([interrupted.promise, stage.postern.exited]);
    say('stopping …');
  }
}
process.exit(failures === 0 ? 0 : 1);
