import { expect, test } from 'vitest';
import { z } from 'zod';

import { startPostfix, type Postfix } from '../support/neighbours/postfix.ts';
import { sendMail, SmtpClient } from '../support/neighbours/smtp-client.ts';
import { LmtpSink } from '../support/players/lmtp-sink.ts';
import { preparePostern, type Postern, type PosternProcess } from '../support/postern.ts';
import { letter } from '../support/site.ts';
import { describeWithNeighbours } from '../support/with-neighbours.ts';

const ZEUS = 'zeus@olimpus.example';
const THOR = 'thor@valhalla.example';
const NO_DNS =
  '[checks]\nspf.enabled = false\ndkim.enabled = false\narc.enabled = false\ndmarc.enabled = false\n';
/** Which daemon has two workers. */
type Shared = 'milter' | 'lmtp-filter';

const MESSAGES = 120;
const SENDERS = 6;
const TRIES = 20;

interface Rig extends AsyncDisposable {
  readonly postern: Postern;
  readonly process: PosternProcess;
  readonly postfix: Postfix;
  readonly sink: LmtpSink;
}

/** Postfix, our daemons, one of them with two workers, and a sink in Dovecot's place. */
async function startRig(shared: Shared, unix = false): Promise<Rig> {
  await using cleanup = new AsyncDisposableStack();
  const sink = cleanup.use(await LmtpSink.open());
  const postern = cleanup.use(
    await preparePostern({
      unix,
      upstream: `127.0.0.1:${sink.port}`,
      config: `${shared}.workers = 2\n${NO_DNS}`,
    }),
  );
  const process = await postern.start();
  const postfix = cleanup.use(
    await startPostfix({
      hostname: 'mx.olimpus.example',
      domains: ['olimpus.example'],
      mailboxes: [ZEUS],
      smtpdMilters: postern.address.milter,
      milterDefaultAction: 'tempfail',
      virtualTransport: `postern:${postern.address['lmtp-filter']}`,
    }),
  );
  const stack = cleanup.move();
  return { postern, process, postfix, sink, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}

const READY = z.object({ daemon: z.string(), worker: z.int(), pid: z.int() });

interface Worker {
  readonly pid: number;
  readonly number: number;
}

/** Those that serve now, as the log tells of them. */
function workers({ process }: Rig, daemon: string): Worker[] {
  const found = new Map<number, Worker>();
  for (const line of process.log.text().split('\n')) {
    if (!line.includes('"msg":"worker is ready"')) continue;
    const { daemon: whose, worker, pid } = READY.parse(JSON.parse(line));
    if (whose === daemon) found.set(worker, { pid, number: worker });
  }
  return [...found.values()];
}

async function metric({ process }: Rig, series: string): Promise<number> {
  const line = (await process.metrics()).split('\n').find((each) => each.startsWith(`${series} `));
  return Number(line?.slice(series.length + 1));
}

/** As an MTA does: who was not accepted comes again. Every reply that was no success. */
async function sendAll({ postfix }: Rig, onAccepted: (count: number) => void): Promise<number[]> {
  const refusals: number[] = [];
  let next = 0;
  let accepted = 0;
  const deliver = async (id: number): Promise<void> => {
    for (let tries = 1; tries <= TRIES; tries++) {
      const { outcome } = await sendMail({
        port: postfix.smtpPort,
        xclient: { addr: `192.0.2.${1 + (id % 200)}`, port: 1024 + id },
        from: THOR,
        to: [ZEUS],
        data: letter({ Subject: `number ${id}` }, `${'x'.repeat(70)}\r\n`.repeat(200)),
      });
      if (outcome.code === 250) return;
      refusals.push(outcome.code);
    }
    throw new Error(`message ${id} was not accepted in ${TRIES} tries`);
  };
  const sender = async (): Promise<void> => {
    for (let id = (next += 1); id <= MESSAGES; id = next += 1) {
      await deliver(id);
      onAccepted((accepted += 1));
    }
  };
  await Promise.all(Array.from({ length: SENDERS }, sender));
  return refusals;
}

function subjects({ sink }: Rig): number[] {
  return sink.mails
    .map(({ content }) => Number(/^Subject: number (\d+)\r$/m.exec(content)?.[1]))
    .toSorted((a, b) => a - b);
}

const ALL = Array.from({ length: MESSAGES }, (_, index) => index + 1);

describeWithNeighbours('several processes for one daemon', () => {
  test.for(['milter', 'lmtp-filter'] as const)(
    'kill -9 of a worker of %s while mail flows: none lost, the others go on, a new one takes its place, and it is counted',
    async (daemon) => {
      await using rig = await startRig(daemon);
      const [victim] = workers(rig, daemon);
      if (victim === undefined) throw new Error('there is no worker');
      const refusals = await sendAll(rig, (accepted) => {
        if (accepted === MESSAGES / 4) process.kill(victim.pid, 'SIGKILL');
      });
      await rig.postfix.flush();
      await rig.postfix.waitForQueueEmpty(60_000);
      // A worker of the LMTP filter that dies after Dovecot's 250 leaves a message that Postfix sends again.
      const delivered = daemon === 'milter' ? subjects(rig) : [...new Set(subjects(rig))];
      expect(delivered).toEqual(ALL);
      // Only sessions of the one that died were told to come again.
      expect(refusals.every((code) => code === 451)).toBe(true);
      expect(refusals.length).toBeLessThanOrEqual(SENDERS);
      await rig.process.waitForLog(/"msg":"worker died"/);
      expect(await metric(rig, `postern_worker_deaths_total{daemon="${daemon}"}`)).toBe(1);
      await expect
        .poll(() => metric(rig, `postern_workers{daemon="${daemon}"}`), { timeout: 30_000 })
        .toBe(2);
      const now = workers(rig, daemon);
      expect(new Set(now.map(({ number }) => number))).toEqual(new Set([1, 2]));
      expect(now.map(({ pid }) => pid)).not.toContain(victim.pid);
    },
  );

  test('metrics of all are one, log lines name the worker, the record is whole; over unix sockets too', async () => {
    await using rig = await startRig('milter', true);
    expect(await sendAll(rig, () => {})).toEqual([]);
    await rig.postfix.waitForQueueEmpty(60_000);
    expect(subjects(rig)).toEqual(ALL);
    const accepted = 'postern_milter_messages_total{direction="in",verdict="accept"}';
    expect(await metric(rig, accepted)).toBe(MESSAGES);
    expect(await metric(rig, 'postern_milter_stage_duration_seconds_count{stage="end-of-message"}')).toBe(
      MESSAGES,
    );
    const lines = rig.process.log
      .text()
      .split('\n')
      .filter((line) => line.includes('"msg":"message judged"'));
    expect(lines).toHaveLength(MESSAGES);
    const counts = [1, 2].map(
      (number) => lines.filter((line) => line.includes(`"worker":${number},`)).length,
    );
    // Each got its part of the work.
    expect(Math.min(...counts)).toBeGreaterThan(MESSAGES / 10);
    expect((counts[0] ?? 0) + (counts[1] ?? 0)).toBe(MESSAGES);
    const ready = await fetch(`http://127.0.0.1:${rig.process.adminPort}/readyz`);
    expect(ready.status).toBe(200);
    // Written behind: what is not in the record when a process is killed is lost.
    const recorded = () => rig.postern.history('--daemon', 'milter', '--limit', '1000');
    await expect.poll(async () => (await recorded()).length, { timeout: 20_000 }).toBe(MESSAGES);
    // What one has counted outlives it.
    const [victim] = workers(rig, 'milter');
    process.kill(victim?.pid ?? 0, 'SIGKILL');
    await rig.process.waitForLog(/"msg":"worker died"/);
    expect(await metric(rig, accepted)).toBe(MESSAGES);
    expect(await rig.process.stop()).toBe(0);
    expect(await recorded()).toHaveLength(MESSAGES);
  });

  test('reload reaches all of them, and a stop lets open sessions end', async () => {
    await using rig = await startRig('milter');
    await rig.postern.configure(`milter.workers = 2\nmilter.max_message_size = "2KiB"\n${NO_DNS}`);
    rig.process.signal('SIGHUP');
    // The process itself, and its workers.
    await expect
      .poll(() => rig.process.log.text().split('"msg":"reloaded"').length - 1, { timeout: 20_000 })
      .toBe(3);
    const large = { from: THOR, to: [ZEUS], data: letter({}, `${'x'.repeat(70)}\r\n`.repeat(100)) };
    for (let session = 0; session < 4; session++) {
      expect((await sendMail({ port: rig.postfix.smtpPort, ...large })).end?.code).toBe(552);
    }

    await using client = await SmtpClient.connect({ port: rig.postfix.smtpPort, host: '127.0.0.1' });
    await client.ehlo('client.example');
    await client.mail(THOR);
    await client.rcpt(ZEUS);
    const stopped = rig.process.stop();
    await rig.process.waitForLog(/"msg":"stopping"/);
    const { replies } = await client.data(letter({ Subject: 'last' }));
    expect(replies.map(({ code }) => code)).toEqual([250]);
    await client.quit();
    expect(await stopped).toBe(0);
    expect(rig.process.log.text()).not.toContain('"msg":"worker died"');
  });
});
