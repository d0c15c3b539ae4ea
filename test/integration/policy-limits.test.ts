import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { expect, test } from 'vitest';
import { z } from 'zod';

import { LmtpSink } from '../support/players/lmtp-sink.ts';
import { startWebhook } from '../support/players/webhook.ts';
import { startPolicySite, type PolicySite } from '../support/policy-site.ts';
import { ODIN, PASSWORD, ZEUS, HERA } from '../support/site.ts';
import { describeWithNeighbours } from '../support/with-neighbours.ts';

const USERS = { [ZEUS]: PASSWORD, [HERA]: PASSWORD };
/** A sender domain that can be answered: other checks have nothing against it. */
const ZONES = { 'valhalla.example': '@ MX 10 odin\nodin A 192.0.2.20' };
const FRIEND = 'thor@valhalla.example';
/** The command takes its time on a busy machine, and decisions are written in batches. */
const PATIENCE = { timeout: 20_000 };

const LISTED = z.object({
  limit: z.string(),
  key: z.string(),
  used: z.number(),
  most: z.number(),
  over_since: z.string().nullable(),
});

/** Used amounts by `limit key`, as `postern limits list` shows them. */
async function used(site: PolicySite, ...filters: string[]): Promise<Record<string, number>> {
  const { code, stdout, stderr } = await site.postern.command('limits', 'list', '--json', ...filters);
  if (code !== 0) throw new Error(stderr);
  const rows = stdout
    .split('\n')
    .filter(Boolean)
    .map((line) => LISTED.parse(JSON.parse(line)));
  return Object.fromEntries(rows.map((row) => [`${row.limit} ${row.key}`, row.used]));
}

function limit(name: string, keys: string): string {
  return `[[checks.limits.limit]]\nname = "${name}"\nperiod = "1h"\n${keys}\n`;
}

function few(keys: string): string {
  return limit('few', `per = ["login"]\nmost = 1\n${keys}`);
}

describeWithNeighbours('limits', () => {
  test('a mail with 16 recipients is one message and 16 recipients; the next one is deferred, and another login is not', async () => {
    await using site = await startPolicySite({
      users: USERS,
      alsoAt: ['data', 'end-of-data'],
      config: [
        limit('messages', 'per = ["login"]\nmost = 1'),
        limit('recipients', 'of = "recipients"\nper = ["login"]\nmost = 20'),
        limit('bytes', 'of = "bytes"\nper = ["login"]\nmost = "1MiB"'),
      ].join(''),
    });
    const to = Array.from({ length: 16 }, (_, index) => `r${index}@valhalla.example`);
    const first = await site.send({ login: ZEUS, from: ZEUS, to });
    expect(first.outcome.code).toBe(250);
    const counted = await used(site);
    expect(counted).toMatchObject({ [`messages ${ZEUS}`]: 1, [`recipients ${ZEUS}`]: 16 });
    // The size that Postfix tells at the end, no SIZE having been declared.
    expect(counted[`bytes ${ZEUS}`]).toBeGreaterThan(100);

    const second = await site.send({ login: ZEUS, from: ZEUS, to: [FRIEND] });
    expect(second.rcpt[0]).toMatchObject({ code: 450, enhanced: '4.7.1' });
    expect(second.rcpt[0]?.text).toContain('Too much mail, please try again later');
    expect(await used(site)).toEqual(counted);
    expect((await site.send({ login: HERA, from: HERA, to: [FRIEND] })).outcome.code).toBe(250);

    const reset = await site.postern.command('limits', 'reset', '--limit', 'messages', '--key', ZEUS);
    expect(reset).toMatchObject({ code: 0, stdout: '1 counter was forgotten\n' });
    expect((await site.send({ login: ZEUS, from: ZEUS, to: [FRIEND] })).outcome.code).toBe(250);
  });

  test('reject says so for good, with the words of the operator; shadow and warn let through and are recorded', async () => {
    await using site = await startPolicySite({
      users: USERS,
      config: few('action = "reject"\ntext = "Ask the gods for more"'),
    });
    const send = () => site.send({ login: ZEUS, from: ZEUS, to: [FRIEND] });
    expect((await send()).outcome.code).toBe(250);
    const refused = await send();
    expect(refused.rcpt[0]).toMatchObject({ code: 550, enhanced: '5.7.1' });
    expect(refused.rcpt[0]?.text).toContain('Ask the gods for more');
    const trace = /\(([a-z2-7]{16})\)/.exec(refused.rcpt[0]?.text ?? '')?.[1] ?? '';
    await expect.poll(async () => (await site.postern.history('--trace', trace)).length, PATIENCE).toBe(1);
    const [decision] = await site.postern.history('--trace', trace);
    expect(decision).toMatchObject({ verdict: 'reject', rule: 'limits.few' });
    expect(decision?.why).toMatch(
      /^limit "few": 1 of 1 messages within 1h used by zeus@olimpus\.example; room again in /,
    );

    await site.reload(few('action = "reject"\nshadow = true'));
    expect((await send()).outcome.code).toBe(250);
    await site.reload(few('action = "warn"'));
    expect((await send()).outcome.code).toBe(250);
    expect(await used(site, '--over')).toEqual({ [`few ${ZEUS}`]: 3 });
    const metrics = await site.policyd.metrics();
    expect(metrics).toMatch(/postern_check_outcomes_total\{check="limits",code="limits\.few"[^}]*\} 3/);
  });

  test('hold puts the message into the hold queue, whole, and Postfix takes it', async () => {
    await using site = await startPolicySite({
      users: USERS,
      config: limit('slowly', 'per = ["login"]\nmost = 1\naction = "hold"'),
    });
    const send = () => site.send({ login: ZEUS, from: ZEUS, to: [FRIEND, 'odin@valhalla.example'] });
    expect((await send()).outcome.code).toBe(250);
    await site.postfix.waitForQueueEmpty();
    expect((await send()).outcome.code).toBe(250);
    const held = await site.postfix.queue();
    expect(held).toMatchObject([{ queueName: 'hold', sender: ZEUS }]);
    expect(held[0]?.recipients.map(({ address }) => address)).toEqual([FRIEND, 'odin@valhalla.example']);
    expect(await used(site)).toEqual({ [`slowly ${ZEUS}`]: 2 });
  });

  test('recipients that Postfix refuses after us do not count', async () => {
    await using site = await startPolicySite({
      zones: ZONES,
      alsoAt: ['data'],
      postfix: { mailboxes: [ZEUS, HERA] },
      config: limit('recipients', 'of = "recipients"\nper = ["client-net"]\nmost = 3'),
    });
    const to = [ZEUS, 'nobody@olimpus.example', 'nemo@olimpus.example', HERA];
    const { rcpt, outcome } = await site.send({
      client: ODIN,
      from: 'odin@valhalla.example',
      to: to.slice(0, 3),
    });
    expect(rcpt.map(({ code }) => code)).toEqual([250, 550, 550]);
    expect(outcome.code).toBe(250);
    expect(await used(site)).toEqual({ 'recipients 192.0.2.0/24': 1 });
    const again = await site.send({ client: ODIN, from: 'odin@valhalla.example', to: [ZEUS, HERA] });
    expect(again.rcpt.map(({ code }) => code)).toEqual([250, 250]);
  });

  test('bytes of a size that was not declared are refused at the end, and nothing of the message counts', async () => {
    await using site = await startPolicySite({
      zones: ZONES,
      alsoAt: ['end-of-data'],
      config:
        limit('bytes', 'of = "bytes"\nper = ["client"]\nmost = "4KiB"') +
        limit('all', 'per = ["all"]\nmost = 9'),
    });
    const from = 'odin@valhalla.example';
    const large = `Subject: large\r\n\r\n${'Hail!\r\n'.repeat(1000)}`;
    const refused = await site.send({ client: ODIN, from, to: [ZEUS], data: large });
    expect(refused.rcpt[0]?.code).toBe(250);
    expect(refused.end).toMatchObject({ code: 450, enhanced: '4.7.1' });
    expect(await used(site)).toEqual({});
    const declared = await site.send({
      client: ODIN,
      from,
      to: [ZEUS],
      data: large,
      mailParameters: ['SIZE=7000'],
    });
    expect(declared.rcpt[0]).toMatchObject({ code: 450, enhanced: '4.7.1' });
    expect((await site.send({ client: ODIN, from, to: [ZEUS] })).outcome.code).toBe(250);
    expect((await used(site))['bytes 192.0.2.20']).toBeGreaterThan(100);
  });

  test('a flood: connections of a client by address and port, however many messages they bring, and its messages', async () => {
    await using site = await startPolicySite({
      users: USERS,
      zones: ZONES,
      config:
        limit('connections', 'of = "connections"\nper = ["client"]\nwithout_login = true\nmost = 2') +
        limit('messages', 'per = ["client-net"]\nwithout_login = true\nmost = 5'),
    });
    const from = 'odin@valhalla.example';
    await using session = await site.dial({ ...ODIN, port: 1001 });
    for (let message = 0; message < 3; message++) {
      expect((await session.mail(from)).code).toBe(250);
      expect((await session.rcpt(ZEUS)).code).toBe(250);
      expect((await session.rset()).code).toBe(250);
    }
    const send = (port: number) => site.send({ client: { ...ODIN, port }, from, to: [ZEUS] });
    expect((await send(1002)).outcome.code).toBe(250);
    expect((await send(1003)).rcpt[0]).toMatchObject({ code: 450, enhanced: '4.7.1' });
    expect((await send(1002)).outcome.code).toBe(250);
    expect(await used(site)).toEqual({ 'connections 192.0.2.20': 2, 'messages 192.0.2.0/24': 5 });
    const neighbour = { addr: '192.0.2.21', name: 'frigg.valhalla.example', helo: 'frigg.valhalla.example' };
    expect((await site.send({ client: neighbour, from, to: [ZEUS] })).rcpt[0]).toMatchObject({
      code: 450,
      enhanced: '4.7.1',
    });
    // The user behind the same address has a login.
    expect((await site.send({ client: ODIN, login: ZEUS, from: ZEUS, to: [HERA] })).outcome.code).toBe(250);
  });

  test('values of single users and domains come from [[account]]', async () => {
    await using site = await startPolicySite({
      users: USERS,
      config: [
        limit('messages', 'per = ["login"]\nmost = 1'),
        '[[account]]\nnames = ["@olimpus.example"]\nlimits = { messages = 2 }\n',
        `[[account]]\nnames = ["${HERA}"]\nlimits = { messages = 3 }\n`,
      ].join(''),
    });
    const codes = async (login: string, count: number): Promise<(number | undefined)[]> => {
      const sent: (number | undefined)[] = [];
      for (let message = 0; message < count; message++)
        sent.push((await site.send({ login, from: login, to: [FRIEND] })).rcpt[0]?.code);
      return sent;
    };
    expect(await codes(ZEUS, 3)).toEqual([250, 250, 450]);
    expect(await codes(HERA, 4)).toEqual([250, 250, 250, 450]);
  });

  test('the first excess is told by mail through Postfix and by webhook, once', async () => {
    await using cleanup = new AsyncDisposableStack();
    const hook = cleanup.use(await startWebhook());
    const sink = cleanup.use(await LmtpSink.open());
    const site = cleanup.use(
      await startPolicySite({
        users: USERS,
        postfix: { virtualTransport: `lmtp:inet:127.0.0.1:${sink.port}` },
      }),
    );
    await writeFile(join(site.postern.folder, 'webhook.header'), 'Authorization: Bearer ambrosia', {
      mode: 0o600,
    });
    await site.reload(
      [
        `[notices]\nmail_to = ["postmaster@asgard.example"]\nsmtp = "127.0.0.1:${site.postfix.smtpPort}"`,
        `webhook = "${hook.url}"\nwebhook_header_file = "webhook.header"`,
        limit('few', 'per = ["login"]\nmost = 1'),
      ].join('\n'),
    );
    for (let message = 0; message < 3; message++) {
      const { rcpt } = await site.send({ login: ZEUS, from: ZEUS, to: [FRIEND] });
      expect(rcpt[0]?.code).toBe(message === 0 ? 250 : 450);
    }
    await site.postfix.waitForLog(/to=<postmaster@asgard\.example>,.* status=sent/);
    await expect.poll(() => hook.notices.length, PATIENCE).toBe(1);
    expect(sink.mails).toMatchObject([{ from: '<>', to: ['<postmaster@asgard.example>'] }]);
    const text = sink.mails[0]?.content ?? '';
    expect(text).toContain('Auto-Submitted: auto-generated\r\n');
    expect(text).toContain('From: Postern <postern@mx.olimpus.example>\r\n');
    expect(text).toContain(`  postern limits reset --limit few --key ${ZEUS}\r\n`);
    expect(hook.notices[0]).toMatchObject({
      headers: { authorization: 'Bearer ambrosia' },
      event: 'limit',
      subject: ZEUS,
      facts: { limit: 'few', most: 1 },
    });
    const metrics = await site.policyd.metrics();
    for (const channel of ['log', 'mail', 'webhook'])
      expect(metrics).toContain(`postern_notices_total{event="limit",channel="${channel}",result="sent"} 1`);
    expect(hook.notices).toHaveLength(1);
  });
});
