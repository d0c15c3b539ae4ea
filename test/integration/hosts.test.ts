import { randomUUID } from 'node:crypto';

import { expect, it } from 'vitest';
import { z } from 'zod';

import { startDovecot } from '../support/neighbours/dovecot.ts';
import { startNetwork, type Network } from '../support/neighbours/network.ts';
import { startPostfix } from '../support/neighbours/postfix.ts';
import { startRedis, type RedisServer } from '../support/neighbours/redis.ts';
import { sendMail } from '../support/neighbours/smtp-client.ts';
import { PolicyClient, type PolicyAttributes } from '../support/players/policy-client.ts';
import { preparePostern, type Postern } from '../support/postern.ts';
import { HERA, letter, ODIN, PASSWORD, ZEUS } from '../support/site.ts';
import { describeWithHosts } from '../support/with-neighbours.ts';

const COUNTER = z.object({ used: z.number() });

/** Mail hosts, each with a network of its own, and a host with Redis between them. */
interface Hosts extends AsyncDisposable {
  readonly network: Network;
  readonly redis: RedisServer;
  postern(name: string): Postern;
}

async function startHosts(
  names: readonly string[],
  config: (redis: RedisServer) => string,
  options: { readonly upstream?: string } = {},
): Promise<Hosts> {
  await using cleanup = new AsyncDisposableStack();
  const network = cleanup.use(await startNetwork([...names, 'redis']));
  const redis = cleanup.use(await startRedis({ host: network.host('redis') }));
  const posterns = new Map<string, Postern>();
  for (const name of names) {
    const postern = await preparePostern({
      ...options,
      hostname: `${name}.olimpus.example`,
      network: network.host(name).network,
      // Which are files: the test reaches them, whatever network they are in.
      unix: true,
      config: `state.redis.address = "${redis.host}:${redis.port}"
checks.spf.enabled = false
checks.dmarc.enabled = false
${config(redis)}`,
    });
    posterns.set(name, cleanup.use(postern));
  }
  const owned = cleanup.move();
  return {
    network,
    redis,
    postern(name) {
      const postern = posterns.get(name);
      if (postern === undefined) throw new Error(`no host ${name}`);
      return postern;
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

async function asked(postern: Postern, differs: PolicyAttributes): Promise<string> {
  await using client = await PolicyClient.open({ path: postern.address.policyd.slice('unix:'.length) });
  return await client.ask({
    client_address: ODIN.addr,
    client_name: ODIN.name,
    helo_name: ODIN.helo,
    sender: 'odin@valhalla.example',
    recipient: ZEUS,
    instance: randomUUID(),
    ...differs,
  });
}

/** So many questions at each host, all at once; how many were let through. */
async function through(
  posterns: readonly Postern[],
  count: number,
  differs: PolicyAttributes,
): Promise<number> {
  const answers = await Promise.all(
    posterns.flatMap((postern) => Array.from({ length: count }, () => asked(postern, differs))),
  );
  for (const answer of answers) expect(answer).toMatch(/^DUNNO$|^(?:DEFER|DEFER_IF_PERMIT|4\d\d) /);
  return answers.filter((answer) => answer === 'DUNNO').length;
}

/** When each process was last heard of, in milliseconds of Redis. */
async function beats(redis: RedisServer): Promise<number[]> {
  const words = await redis.command('ZRANGE', 'postern:{nodes}', '0', '-1', 'WITHSCORES');
  return words.filter((_, index) => index % 2 === 1).map(Number);
}

/** Until so many were heard of again, so much later than any is now. */
async function beaten(redis: RedisServer, processes: number, laterMs = 0): Promise<void> {
  const last = Math.max(0, ...(await beats(redis)));
  const again = async (): Promise<number> =>
    (await beats(redis)).filter((time) => time > last + laterMs).length;
  await expect.poll(again, { timeout: 20_000 }).toBeGreaterThanOrEqual(processes);
}

describeWithHosts('two hosts on one Redis', () => {
  it('share greylist, limits, reservations and history', async () => {
    const most = 100;
    await using hosts = await startHosts(
      ['mx1', 'mx2'],
      // With time enough for two hundred questions at once on a busy machine: a limit that can't be asked about lets mail pass.
      ({ host, port }) => `state.redis.timeout = "5s"
policyd.deadline = "30s"
checks.greylist = { enabled = true, delay = "1s" }
checks.limits.deadline = "20s"
directory.mailbox_domains = ["olimpus.example"]
dovecot.quota_clone.address = "${host}:${port}"
[[account]]
names = ["${HERA}"]
quota = "10MiB"
[[checks.limits.limit]]
name = "messages"
per = ["login"]
most = ${most}
period = "1h"
[[policy]]
contexts = ["greylist"]
checks = ["greylist"]
[[policy]]
contexts = ["limits"]
checks = ["limits"]
[[policy]]
contexts = ["quota"]
checks = ["quota"]
`,
    );
    const [mx1, mx2] = [hosts.postern('mx1'), hosts.postern('mx2')];
    await Promise.all([mx1.start('policyd'), mx2.start('policyd')]);

    // Who waited at one host has waited at the other, and is known there.
    const grey = { policy_context: 'greylist' };
    expect(await asked(mx1, grey)).toMatch(/Greylisted/);
    await expect.poll(() => asked(mx2, grey), { timeout: 30_000 }).toBe('DUNNO');
    expect(await asked(mx1, grey)).toBe('DUNNO');
    expect(await asked(mx2, { ...grey, sender: 'thor@valhalla.example' })).toMatch(/Greylisted/);

    // A hundred in all, also when both are asked at once.
    const mails = { policy_context: 'limits', sasl_username: ZEUS, sender: ZEUS };
    expect(await through([mx1, mx2], most, mails)).toBe(most);
    expect(await through([mx1, mx2], 1, mails)).toBe(0);
    const listed = await mx2.command('limits', 'list', '--json');
    expect(JSON.parse(listed.stdout)).toMatchObject({ limit: 'messages', key: ZEUS, used: most });

    // As Dovecot's quota_clone writes it: the mailbox is empty. Three of 3 MiB fit into 10 MiB.
    await hosts.redis.command('SET', `dovecot-quota/${HERA}/quota/storage`, '0');
    const large = { policy_context: 'quota', recipient: HERA, size: `${3 * 1024 ** 2}` };
    expect(await through([mx1, mx2], 5, large)).toBe(3);

    // Each knows what the other decided, and which host it was.
    for (const postern of [mx1, mx2]) {
      const filter = ['--to', ZEUS, '--from', ZEUS, '--limit', '1000'];
      await expect
        .poll(async () => (await postern.history(...filter)).length, { timeout: 20_000 })
        .toBe(2 * most + 2);
      const decisions = await postern.history(...filter);
      expect(new Set(decisions.map(({ host }) => host))).toEqual(
        new Set(['mx1.olimpus.example', 'mx2.olimpus.example']),
      );
      expect(decisions.filter(({ verdict }) => verdict === 'accept')).toHaveLength(most);
    }
    const [refused] = await mx2.history('--rule', 'limits.messages', '--limit', '1');
    const explained = await mx1.command('history', '--trace', refused?.trace ?? '');
    expect(explained.stdout).toMatch(
      /policyd rcpt {2}defer {2}by limits\.messages .* at mx[12]\.olimpus\.example/,
    );
  });

  it('scan once: lmtp-filter on one knows what the milter on the other found', async () => {
    await using cleanup = new AsyncDisposableStack();
    const dovecot = cleanup.use(await startDovecot({ users: { [ZEUS]: PASSWORD } }));
    const hosts = cleanup.use(
      await startHosts(['mx', 'mailbox'], () => '', { upstream: `unix:${dovecot.lmtpSocket}` }),
    );
    const [mx, mailbox] = [hosts.postern('mx'), hosts.postern('mailbox')];
    const [, delivering] = await Promise.all([mx.start('policyd', 'milter'), mailbox.start('lmtp-filter')]);
    const postfix = cleanup.use(
      await startPostfix({
        hostname: 'mx.olimpus.example',
        domains: ['olimpus.example'],
        mailboxes: [ZEUS],
        policyService: mx.address.policyd,
        smtpdMilters: mx.address.milter,
        milterDefaultAction: 'tempfail',
        virtualTransport: `postern:${mailbox.address['lmtp-filter']}`,
      }),
    );
    const { outcome } = await sendMail({
      port: postfix.smtpPort,
      xclient: ODIN,
      from: 'odin@valhalla.example',
      to: [ZEUS],
      data: letter({}),
    });
    expect(outcome).toMatchObject({ code: 250 });
    const [delivered = Buffer.alloc(0)] = await dovecot.waitForMessages(ZEUS, 1);
    const trace = /^X-Postern-Trace: (\S+)\r$/m.exec(delivered.toString('latin1'))?.[1] ?? '';
    const journey = ['--trace', trace];
    await expect.poll(async () => (await mx.history(...journey)).length, { timeout: 20_000 }).toBe(3);
    const decisions = await mailbox.history(...journey);
    expect(decisions.map(({ daemon, host }) => `${daemon} at ${host}`).toSorted()).toEqual([
      'lmtp-filter at mailbox.olimpus.example',
      'milter at mx.olimpus.example',
      'policyd at mx.olimpus.example',
    ]);
    const of = (name: string) => decisions.find(({ daemon }) => daemon === name)?.outcomes;
    expect(of('milter')?.map(({ check }) => check)).toContain('dkim');
    // To the microsecond: they are the milter's, not made again.
    expect(of('lmtp-filter')).toEqual(of('milter'));
    expect(delivering.log.text()).not.toContain('could not be');

    // What a user says of it at one host is seen at the other.
    const learned = await mailbox.command('learn', 'spam', '--user', ZEUS, '--message-id', trace);
    expect([learned.code, learned.stderr]).toEqual([0, '']);
    expect((await mx.command('history', ...journey)).stdout).toContain(`label: spam, says ${ZEUS}`);
  });
});

describeWithHosts('three hosts, one of which loses the network', () => {
  it.each([
    { name: 'one host', cut: ['mx3'] },
    { name: 'two hosts', cut: ['mx2', 'mx3'] },
    { name: 'Redis', cut: ['redis'] },
  ] as const)('$name cut off: at most 1.1 times the limit, and nothing is counted twice', async ({ cut }) => {
    const most = 90;
    await using hosts = await startHosts(
      ['mx1', 'mx2', 'mx3'],
      () => `state.when_lost = "local"
[[checks.limits.limit]]
name = "messages"
per = ["login"]
most = ${most}
period = "1h"
`,
    );
    const { network, redis } = hosts;
    const mx1 = hosts.postern('mx1');
    const all = [mx1, hosts.postern('mx2'), hosts.postern('mx3')];
    const processes = await Promise.all(all.map((postern) => postern.start('policyd')));
    await expect.poll(async () => (await beats(redis)).length, { timeout: 20_000 }).toBe(3);
    await beaten(redis, 3);
    const mails = { sasl_username: ZEUS, sender: ZEUS };
    let count = 0;
    for (let time = 0; time < 5; time++) count += await through(all, 1, mails);
    expect(count).toBe(15);

    // Without Redis all three are away; else those that are cut off, which are the last.
    const away = cut.some((name) => name === 'redis') ? processes : processes.slice(-cut.length);
    const marks = away.map(({ log }) => log.mark());
    for (const name of cut) await network.host(name).cut();
    // Nothing says that a cable is out: those behind it find that no answer comes, those that are left that nobody beats.
    for (const [index, process] of away.entries()) {
      await process.waitForLog(/"state":"not there"/, { after: marks[index] ?? 0, deadlineMs: 30_000 });
    }
    if (away.length < 3) await beaten(redis, 3 - away.length, 1000);
    for (let time = 0; time < 60; time++) count += await through(all, 1, mails);
    expect(count).toBeGreaterThan(most / 2);
    expect(count).toBeLessThanOrEqual(1.1 * most);

    const healing = away.map(({ log }) => log.mark());
    for (const name of cut) await network.host(name).mend();
    for (const [index, process] of away.entries()) {
      await process.waitForLog(/"state":"there"/, { after: healing[index] ?? 0, deadlineMs: 60_000 });
    }
    await beaten(redis, 3);
    for (let time = 0; time < 20; time++) count += await through(all, 1, mails);
    expect(count).toBeLessThanOrEqual(1.1 * most);
    const used = async (): Promise<number> => {
      const { stdout } = await mx1.command('limits', 'list', '--json');
      return COUNTER.parse(JSON.parse(stdout)).used;
    };
    await expect.poll(used, { timeout: 20_000, interval: 500 }).toBe(count);
    // Beats that come later add nothing.
    await beaten(redis, 3);
    expect(await used()).toBe(count);
    // What was decided without Redis was kept, and written when it was there again: each message once.
    const filter = ['--from', ZEUS, '--verdict', 'accept', '--limit', '1000'];
    await expect
      .poll(async () => (await mx1.history(...filter)).length, { timeout: 60_000, interval: 500 })
      .toBe(count);
    const hostsSeen = new Set((await mx1.history(...filter)).map(({ host }) => host));
    expect(hostsSeen.size).toBe(3);
  });
});
