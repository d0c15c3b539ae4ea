import { createServer } from 'node:net';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { z } from 'zod';

import { startPostfix, type Postfix, type PostfixOptions } from '../support/neighbours/postfix.ts';
import { sendMail, SmtpClient } from '../support/neighbours/smtp-client.ts';
import { freePort } from '../support/neighbours/ports.ts';
import { LmtpSink } from '../support/players/lmtp-sink.ts';
import {
  preparePostern,
  type Postern,
  type PosternOptions,
  type PosternProcess,
} from '../support/postern.ts';
import { letter } from '../support/site.ts';
import { describeWithNeighbours } from '../support/with-neighbours.ts';

const ZEUS = 'zeus@olimpus.example';
const HERA = 'hera@olimpus.example';
const THOR = 'thor@valhalla.example';
/** Without a name server: nothing is looked up, and SPF, DKIM and DMARC would have to wait. */
const NO_DNS =
  '[checks]\nspf.enabled = false\ndkim.enabled = false\narc.enabled = false\ndmarc.enabled = false\n';

const RECORD = z.object({ client: z.string(), login: z.string().nullable(), direction: z.string() });

interface Rig extends AsyncDisposable {
  readonly postern: Postern;
  readonly milter: PosternProcess;
  readonly postfix: Postfix;
  readonly sink: LmtpSink;
}

async function startRig(
  postfixOptions: PostfixOptions = {},
  posternOptions: PosternOptions = { config: NO_DNS },
): Promise<Rig> {
  await using cleanup = new AsyncDisposableStack();
  const sink = cleanup.use(await LmtpSink.open());
  const postern = cleanup.use(await preparePostern(posternOptions));
  const milter = await postern.start('milter');
  const postfix = cleanup.use(
    await startPostfix({
      hostname: 'mx.olimpus.example',
      domains: ['olimpus.example'],
      mailboxes: [ZEUS, HERA],
      smtpdMilters: postern.address.milter,
      nonSmtpdMilters: postern.address.milter,
      milterDefaultAction: 'tempfail',
      virtualTransport: `lmtp:inet:127.0.0.1:${sink.port}`,
      ...postfixOptions,
    }),
  );
  const stack = cleanup.move();
  return { postern, milter, postfix, sink, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}

/** Value of a metric with these labels, in this order. */
async function metric({ milter }: Rig, series: string): Promise<number> {
  const line = (await milter.metrics()).split('\n').find((each) => each.startsWith(`${series} `));
  return Number(line?.slice(series.length + 1));
}

function messages(rig: Rig, direction: 'in' | 'out', verdict: string): Promise<number> {
  return metric(rig, `postern_milter_messages_total{direction="${direction}",verdict="${verdict}"}`);
}

/** Whatever Postfix did not like of ours. */
function complaints({ postfix }: Rig): string[] {
  return postfix
    .log()
    .split('\n')
    .filter((line) => /milter/i.test(line) && /warning|error|fatal|unexpected|malformed/.test(line));
}

describeWithNeighbours('the milter protocol with a real Postfix', () => {
  test.for(
    ([2, 3, 4, 6] as const).flatMap((version) => [
      { version, unix: false },
      { version, unix: true },
    ]),
  )('milter_protocol = $version, unix socket: $unix', async ({ version, unix }) => {
    await using rig = await startRig({ milterProtocol: version }, { unix, config: NO_DNS });
    const { postfix, sink, postern } = rig;
    await using client = await SmtpClient.connect({ port: postfix.smtpPort, host: '127.0.0.1' });
    await client.ehlo('odin.valhalla.example');
    // One more than the messages: XCLIENT ends the milter connection and opens a new one.
    await client.xclient({ addr: '192.0.2.20', name: 'odin.valhalla.example', port: 40_327 });
    await client.ehlo('odin.valhalla.example');

    // A command that nobody knows, and ABORT after MAIL, after RCPT and after a refused RCPT.
    expect((await client.command('FROB')).code).toBe(500);
    expect((await client.mail(THOR)).code).toBe(250);
    expect((await client.rset()).code).toBe(250);
    expect((await client.mail(THOR, ['SIZE=100', 'BODY=8BITMIME'])).code).toBe(250);
    expect((await client.rcpt(ZEUS)).code).toBe(250);
    expect((await client.rset()).code).toBe(250);
    expect((await client.mail('')).code).toBe(250);
    expect((await client.rcpt('nobody@olimpus.example')).code).toBe(550);
    expect((await client.ehlo('again.valhalla.example')).code).toBe(250);

    // Three messages in one session, each with the next one's envelope in the same segment (RFC 2920).
    const envelope = `MAIL FROM:<${THOR}>\r\nRCPT TO:<${ZEUS}>\r\nRCPT TO:<nobody@olimpus.example>\r\nRCPT TO:<${HERA}>\r\nDATA\r\n`;
    const contents = [
      letter({ Subject: 'one', 'X-Folded': 'a\r\n\tb\r\n  c', 'X-Tight': '' }, ''),
      letter({ Subject: 'two', 'X-8bit': 'J\xc3\xb6rg' }, '..dots\r\n\xff\xfe\r\n'),
      letter({ Subject: 'three' }, `${'0123456789abcdef'.repeat(60)}\r\n`.repeat(200)),
    ];
    client.writeRaw(envelope);
    for (const [index, content] of contents.entries()) {
      const codes = (await client.readReplies(5)).map(({ code }) => code);
      expect(codes).toEqual([250, 250, 550, 250, 354]);
      const next = index + 1 < contents.length ? envelope : '';
      client.writeRaw(Buffer.from(`${content}.\r\n${next}`, 'latin1'));
      expect((await client.readReply()).code).toBe(250);
    }
    expect((await client.quit()).code).toBe(221);
    await postfix.waitForQueueEmpty();

    expect(sink.mails.map(({ to }) => to.length)).toEqual([2, 2, 2]);
    for (const [index, content] of contents.entries()) {
      const subject = /^Subject: .*$/m.exec(content)?.[0] ?? '?';
      const mail = sink.mails.find((each) => each.content.includes(`\r\n${subject}\r\n`));
      const [head = '', body = ''] = splitOnce(mail?.content ?? '');
      const [sent = '', sentBody = ''] = splitOnce(content);
      expect(head, `message ${index}`).toMatch(/^X-Postern-Trace: [a-z2-7]{16}$/m);
      // Not a field was changed, whoever cut or added the space behind the colon.
      for (const field of fieldsOf(sent)) expect(fieldsOf(head)).toContain(field);
      expect(body.replaceAll('\r\n', '\n').trimEnd()).toBe(
        sentBody.replaceAll(/^\./gm, '').replaceAll('\r\n', '\n').trimEnd(),
      );
    }
    expect(await messages(rig, 'in', 'accept')).toBe(3);
    expect(await messages(rig, 'in', 'aborted')).toBe(3);
    expect(await rig.milter.metrics()).not.toMatch(/^postern_milter_errors_total\{kind="[^"]+"\} [1-9]/m);
    const decisions = await postern.history();
    expect(decisions.map(({ recipients, queueId }) => [recipients, queueId === null])).toEqual(
      Array.from({ length: 3 }, () => [[ZEUS, HERA], false]),
    );
    expect(complaints(rig)).toEqual([]);
  });

  describe('mail of other ways', () => {
    let rig: Rig;

    beforeAll(async () => {
      rig = await startRig({
        main: { internal_mail_filter_classes: 'bounce', inet_protocols: 'all' },
      });
    });

    afterAll(async () => {
      await rig[Symbol.asyncDispose]();
    });

    /** What the record says of a sender's client. */
    const seen = async (name: string): Promise<unknown> => {
      const { stdout } = await rig.postern.command('history', '--json', '--from', senderNamed(name));
      const { client, login, direction } = RECORD.parse(JSON.parse(stdout));
      return [client, login, direction];
    };

    test('sendmail(1): outgoing, with a queue id, one connection for each message', async () => {
      const before = await messages(rig, 'out', 'accept');
      await Promise.all(
        [1, 2, 3].map((number) =>
          rig.postfix.sendmail(`From: ${ZEUS}\nTo: ${HERA}\nSubject: local ${number}\n\nHello\n`, {
            from: ZEUS,
            to: [HERA],
          }),
        ),
      );
      await rig.postfix.waitForQueueEmpty();
      expect(await messages(rig, 'out', 'accept')).toBe(before + 3);
      expect(await metric(rig, 'postern_milter_sessions')).toBe(0);
      const local = (await rig.postern.history('--from', ZEUS)).filter(({ daemon }) => daemon === 'milter');
      expect(local.every(({ queueId, direction }) => queueId !== null && direction === 'out')).toBe(true);
      const got = rig.sink.mails.filter(({ content }) => /^Subject: local \d\r$/m.test(content));
      expect(got).toHaveLength(3);
      for (const { content } of got) expect(content).toMatch(/^X-Postern-Trace: /m);
    });

    test("Postfix's own notification: goes through, and no check is made of it", async () => {
      // Nothing goes out of this test: the address bounces, and the bounce is for Zeus.
      await rig.postfix.sendmail(`From: ${ZEUS}\nSubject: far away\n\nHello\n`, {
        from: ZEUS,
        to: ['nobody@elsewhere.example'],
      });
      await rig.postfix.waitForQueueEmpty();
      const bounce = rig.sink.mails.find(({ from }) => from === '' || from === '<>');
      expect(bounce?.content).toMatch(/^Subject: Undelivered Mail Returned to Sender\r$/m);
      expect(bounce?.content).toMatch(/^X-Postern-Trace: /m);
      const [decision] = await rig.postern.history('--from', '<>');
      expect(decision).toMatchObject({ direction: 'out', verdict: 'accept', outcomes: [] });
    });

    test('a client of IPv6, one without a name, one with a login', async () => {
      const clients = [
        ['six', { addr: '2001:db8::20', name: 'odin.valhalla.example', port: 1025 }],
        ['nameless', { addr: '198.51.100.66', port: 1026 }],
        ['login', { addr: '198.51.100.67', port: 1027, login: 'zeus' }],
      ] as const;
      for (const [name, xclient] of clients) {
        const { outcome } = await sendMail({
          port: rig.postfix.smtpPort,
          xclient,
          from: senderNamed(name),
          to: [ZEUS],
          data: letter({ Subject: name }),
        });
        expect(outcome.code).toBe(250);
      }
      expect(await seen('six')).toEqual(['2001:db8::20', null, 'in']);
      expect(await seen('nameless')).toEqual(['198.51.100.66', null, 'in']);
      expect(await seen('login')).toEqual(['198.51.100.67', 'zeus', 'out']);
    });

    test('BDAT looks like DATA', async () => {
      const content = letter({ Subject: 'chunked' });
      const chunks = [content.slice(0, 40), content.slice(40)];
      await using client = await SmtpClient.connect({ port: rig.postfix.smtpPort, host: '127.0.0.1' });
      await client.ehlo('client.example');
      await client.mail(THOR);
      await client.rcpt(ZEUS);
      for (const [index, chunk] of chunks.entries()) {
        client.writeRaw(`BDAT ${chunk.length}${index === 1 ? ' LAST' : ''}\r\n${chunk}`);
        expect((await client.readReply()).code).toBe(250);
      }
      await client.quit();
      await rig.postfix.waitForQueueEmpty();
      const mail = rig.sink.mails.find(({ content: got }) => got.includes('\r\nSubject: chunked\r\n'));
      expect(mail?.content).toMatch(/^X-Postern-Trace: /m);
    });

    test('Postfix complains of nothing', () => {
      expect(complaints(rig)).toEqual([]);
    });
  });

  test.for([6, 2] as const)(
    'edits and words as Postfix takes them (milter_protocol = %i)',
    async (version) => {
      // Words of a rule with per cent signs, and forged fields of ours between others: deleted by index, which shifts with each of them.
      const rule = `[[checks.content.rule]]\nname = "sure"\ndirection = "both"\nwords = ["xyzzy"]\naction = "reject"\n[rules]\n"content.sure" = { action = "reject", text = "100% sure, %s and %% too" }\n`;
      await using rig = await startRig({ milterProtocol: version }, { config: `${NO_DNS}${rule}` });
      const send = (content: string) =>
        sendMail({
          port: rig.postfix.smtpPort,
          xclient: { addr: '192.0.2.20', name: 'odin.valhalla.example', port: 40_327 },
          from: THOR,
          to: [ZEUS],
          data: content,
        });
      const refused = await send(letter({ Subject: 'xyzzy' }));
      expect(refused.outcome.lines.join(' ')).toMatch(/^550 5\.7\.1 100% sure, %s and %% too \(/);

      const forged = 'Authentication-Results: mx.olimpus.example; dkim=pass header.d=bank.example';
      const others = ['one', 'two', 'three'].map((host) => `Authentication-Results: ${host}.example; none`);
      const [one = '', two = '', three = ''] = others;
      const head = [forged, one, forged, forged, two, `${forged};\r\n\tspf=pass`, three, forged].join('\r\n');
      expect((await send(`${head}\r\n${letter({})}`)).outcome.code).toBe(250);
      await rig.postfix.waitForQueueEmpty();
      const [section = ''] = splitOnce(rig.sink.mails[0]?.content ?? '');
      const fields = fieldsOf(section);
      expect(fields.filter((field) => field.startsWith('Authentication-Results:'))).toEqual(others);
      // Index 0: above Postfix's own Received, which milters do not see.
      expect(fields.findIndex((field) => field.startsWith('X-Postern-Trace:'))).toBeLessThan(
        fields.findIndex((field) => field.startsWith('Received:')),
      );
      expect(complaints(rig)).toEqual([]);
    },
  );

  test.for([
    ['accept', 250],
    ['tempfail', 451],
    ['reject', 550],
  ] as const)('away, milter_default_action = %s: what Postfix says', async ([milterDefaultAction, code]) => {
    await using rig = await startRig({ milterDefaultAction });
    const send = async (): Promise<number> => {
      const { outcome } = await sendMail({
        port: rig.postfix.smtpPort,
        from: THOR,
        to: [ZEUS],
        data: letter({}),
      });
      return outcome.code;
    };
    expect(await send()).toBe(250);
    expect(await messages(rig, 'out', 'accept')).toBe(1);
    expect(await rig.milter.stop()).toBe(0);
    expect(await send()).toBe(code);
    // The next SMTP session tries afresh.
    await rig.postern.start('milter');
    expect(await send()).toBe(250);
    await expect.poll(async () => (await rig.postern.history()).length, { timeout: 20_000 }).toBe(2);
  });

  test(
    'a check that hangs longer than Postfix waits: progress keeps it waiting, the deadline of the whole message ends it, and says which check',
    { timeout: 120_000 },
    async () => {
      const port = await freePort();
      // Takes connections, and says nothing.
      const silent = createServer((socket) => socket.on('error', () => socket.destroy()).resume());
      await new Promise<void>((resolve) => silent.listen(port, '127.0.0.1', resolve));
      const config = `milter.deadline = "26s"\n${NO_DNS}virus.deadline = "60s"\n[clamd]\nenabled = true\naddresses = ["127.0.0.1:${port}"]\n`;
      try {
        await using rig = await startRig({ main: { milter_content_timeout: '23s' } }, { config });
        const begun = performance.now();
        await using client = await SmtpClient.connect(
          { port: rig.postfix.smtpPort, host: '127.0.0.1' },
          60_000,
        );
        await client.ehlo('client.example');
        await client.xclient({ addr: '192.0.2.20' });
        await client.ehlo('client.example');
        await client.mail(THOR);
        await client.rcpt(ZEUS);
        const { replies } = await client.data(letter({}));
        const waited = performance.now() - begun;
        expect(replies).toMatchObject([{ code: 451, enhanced: '4.7.0' }]);
        expect(waited).toBeGreaterThan(25_000);
        expect(waited).toBeLessThan(40_000);
        expect(complaints(rig)).toEqual([]);
        const line = await rig.milter.waitForLog(/"msg":"the time for the message was used up"/);
        expect(JSON.parse(line)).toMatchObject({ daemon: 'milter', checks: ['virus'] });
        expect(await metric(rig, 'postern_milter_overruns_total{check="virus"}')).toBe(1);
        expect(await metric(rig, 'postern_check_unavailable_total{check="virus",reason="deadline"}')).toBe(1);
        const [decision] = await rig.postern.history();
        expect(decision).toMatchObject({ verdict: 'defer', rule: 'unavailable:virus' });
      } finally {
        silent.close();
      }
    },
  );
});

function senderNamed(name: string): string {
  return `${name}@valhalla.example`;
}

function splitOnce(content: string): string[] {
  const at = content.indexOf('\r\n\r\n');
  return [content.slice(0, at + 2), content.slice(at + 4)];
}

/** With their folds; each as it stands in the message. */
function fieldsOf(section: string): string[] {
  return section.match(/^[!-9;-~]+:(?:[^\r]|\r\n[ \t])*/gm) ?? [];
}
