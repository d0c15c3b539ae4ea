import { Resolver } from 'node:dns/promises';
import { generateKeyPairSync } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { expect, test } from 'vitest';

import { arcWithMailauth } from '../support/arc-oracle.ts';
import { startBind, txtData, type Bind } from '../support/neighbours/bind.ts';
import { dkimpyArc } from '../support/neighbours/dkimpy.ts';
import { startPostfix, type Postfix } from '../support/neighbours/postfix.ts';
import { sendMail } from '../support/neighbours/smtp-client.ts';
import { LmtpSink } from '../support/players/lmtp-sink.ts';
import { preparePostern } from '../support/postern.ts';
import { letter, ODIN } from '../support/site.ts';
import { describeWithNeighbours } from '../support/with-neighbours.ts';

const AWAY = 'away@olimpus.example';
const ZEUS = 'zeus@olimpus.example';

interface Rig extends AsyncDisposable {
  readonly bind: Bind;
  readonly postfix: Postfix;
  readonly sink: LmtpSink;
}

/** A site whose address "away" is an alias to elsewhere.example; all mail ends in one sink. */
async function startRig(): Promise<Rig> {
  await using cleanup = new AsyncDisposableStack();
  const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const record = publicKey.export({ type: 'spki', format: 'der' }).toString('base64');
  const bind = cleanup.use(
    await startBind({
      zones: {
        'olimpus.example': `arc._domainkey TXT ${txtData(`v=DKIM1; k=rsa; p=${record}`)}`,
        'valhalla.example': '@ TXT "v=spf1 ip4:192.0.2.20 -all"',
      },
    }),
  );
  const sink = cleanup.use(await LmtpSink.open());
  const postern = cleanup.use(await preparePostern({ dnsPort: bind.port }));
  const file = join(postern.folder, 'arc.private');
  await writeFile(file, privateKey.export({ type: 'pkcs8', format: 'pem' }), { mode: 0o600 });
  await writeFile(join(postern.folder, 'virtual'), `${AWAY} friend@elsewhere.example\n`);
  await postern.configure(
    [
      '[checks.arc]',
      'enabled = true',
      '[directory]',
      'mailbox_domains = ["olimpus.example"]',
      'aliases = ["virtual"]',
      '[arc]',
      'domain = "olimpus.example"',
      '[[signing.key]]',
      'domain = "olimpus.example"',
      'selector = "arc"',
      `file = ${JSON.stringify(file)}`,
    ].join('\n'),
  );
  await postern.start('milter');
  const transport = `lmtp:inet:127.0.0.1:${sink.port}`;
  const postfix = cleanup.use(
    await startPostfix({
      hostname: 'mx.olimpus.example',
      domains: ['olimpus.example'],
      mailboxes: [ZEUS],
      aliases: { [AWAY]: 'friend@elsewhere.example' },
      transports: { 'elsewhere.example': transport },
      smtpdMilters: postern.address.milter,
      milterDefaultAction: 'tempfail',
      virtualTransport: transport,
    }),
  );
  const stack = cleanup.move();
  return { bind, postfix, sink, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}

async function through({ postfix, sink }: Rig, to: string, message: string): Promise<Buffer> {
  const before = sink.mails.length;
  const { outcome } = await sendMail({
    port: postfix.smtpPort,
    xclient: ODIN,
    from: 'odin@valhalla.example',
    to: [to],
    data: Buffer.from(message, 'latin1'),
  });
  expect(outcome.code).toBe(250);
  await postfix.waitForQueueEmpty();
  return Buffer.from(sink.mails[before]?.content ?? '', 'latin1');
}

async function judged({ bind }: Rig, message: Buffer): Promise<string[]> {
  const resolver = new Resolver();
  resolver.setServers([`${bind.host}:${bind.port}`]);
  return [
    await arcWithMailauth(message, (name) => resolver.resolveTxt(name)),
    await dkimpyArc(message, bind),
  ];
}

const GOOD = ['pass', "arc verification: cv=b'pass' success"];

describeWithNeighbours('ARC seals on mail that an alias sends on', () => {
  test('two hops through Postfix: mailauth and dkimpy verify the chain', async () => {
    await using rig = await startRig();
    const first = await through(rig, AWAY, letter({ To: AWAY }, 'Gr\xfc\xdfe  \r\n\r\n\r\n'));
    expect(first.toString('latin1')).toMatch(
      /^ARC-Authentication-Results: i=1; mx\.olimpus\.example;[\s\S]*?spf=pass/m,
    );
    expect(await judged(rig, first)).toEqual(GOOD);
    const second = await through(rig, AWAY, first.toString('latin1'));
    expect(second.toString('latin1')).toMatch(/^ARC-Seal: i=2; a=rsa-sha256; cv=pass;/m);
    expect(await judged(rig, second)).toEqual(GOOD);
    const third = await through(rig, AWAY, second.toString('latin1').replace('Subject: ', 'Subject: Re: '));
    expect(third.toString('latin1')).toMatch(/^ARC-Seal: i=3; a=rsa-sha256; cv=fail;/m);
    expect((await judged(rig, third))[0]).toBe('fail');
  });

  test('mail for a mailbox is not sealed', async () => {
    await using rig = await startRig();
    expect((await through(rig, ZEUS, letter({ To: ZEUS }))).toString('latin1')).not.toMatch(/^ARC-/m);
  });
});
