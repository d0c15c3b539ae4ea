import { generateKeyPairSync } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { expect, test } from 'vitest';

import { verifyWithMailauth } from '../support/dkim-oracle.ts';
import { startBind, txtData, type Bind } from '../support/neighbours/bind.ts';
import { dkimpyVerify } from '../support/neighbours/dkimpy.ts';
import { opendkimVerify } from '../support/neighbours/opendkim.ts';
import { startPostfix, type Postfix } from '../support/neighbours/postfix.ts';
import { sendMail } from '../support/neighbours/smtp-client.ts';
import { LmtpSink } from '../support/players/lmtp-sink.ts';
import { preparePostern } from '../support/postern.ts';
import { describeWithNeighbours } from '../support/with-neighbours.ts';

const ZEUS = 'zeus@olimpus.example';
const HERA = 'hera@olimpus.example';

const HEAD = [
  `From: Zeus <${ZEUS}>`,
  `To: ${HERA}`,
  'Subject: thunder',
  'Date: Sat, 21 Nov 2026 09:00:00 +0000',
  'Message-ID: <1@olimpus.example>',
].join('\r\n');

/** Messages that signers and MTAs stumble over, as latin1. All end as SMTP wants them to. */
const CORPUS: Readonly<Record<string, string>> = {
  plain: `${HEAD}\r\n\r\nHello\r\n`,
  '8-bit': `${HEAD}\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nGr\xc3\xbc\xc3\x9fe \xa0 \r\n\xff\xfe\r\n`,
  '8-bit in the header section': `${HEAD}\r\nX-Name: J\xc3\xb6rg \xa0\r\n\r\nHello\r\n`,
  'bare CR': `${HEAD}\r\n\r\none\rtwo\r\r\nthree \r \r\n`,
  'bare LF': `${HEAD}\r\n\r\none\ntwo\n\nthree\r\n`,
  'empty body': `${HEAD}\r\n\r\n`,
  'header section only': `${HEAD}\r\n`,
  'empty lines only': `${HEAD}\r\n\r\n\r\n\r\n\r\n`,
  'blanks only': `${HEAD}\r\n\r\n \t \r\n\t\r\n`,
  'empty lines at the end': `${HEAD}\r\n\r\nHello\r\n\r\n\r\n`,
  'trailing blanks': `${HEAD}\r\nX-Trail: a \t\r\n\r\nHello \t\r\n  indented\t \r\n \r\n`,
  'a line of 998 octets': `${HEAD}\r\n\r\n${'x'.repeat(998)}\r\n`,
  'a line of 5,000 octets': `${HEAD}\r\n\r\n${'words and '.repeat(500)}\r\n`,
  'a header line of 3,000 octets': `${HEAD}\r\nX-Long: ${'word '.repeat(600)}\r\n\r\nHello\r\n`,
  'duplicate fields': `${HEAD}\r\nSubject: lightning\r\nSubject: rain\r\nTo: iris@olimpus.example\r\n\r\nHello\r\n`,
  '1,000 fields': `${HEAD}\r\n${Array.from({ length: 1000 }, (_, index) => `X-${index % 7}: ${index}`).join('\r\n')}\r\n\r\nHello\r\n`,
  'folded, tight and odd fields': `${HEAD}\r\nReply-To:zeus@olimpus.example\r\nCc:\t ${HERA},\r\n  ${ZEUS}\r\nReferences: <a@b>\r\n\t<c@d>\r\n \t<e@f>\r\nX-Empty:\r\nX-Colons: a:b;c=d\r\n\r\nHello\r\n`,
  'dots at line ends and beginnings': `${HEAD}\r\n\r\n.\r\n..\r\n.Hello.\r\n`,
  'no Date, no Message-ID': `From: ${ZEUS}\r\nTo: ${HERA}\r\n\r\nHello\r\n`,
  'a part of a MIME message': `${HEAD}\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="=_x"\r\n\r\npreamble\r\n--=_x\r\nContent-Type: text/plain\r\n\r\nHello \r\n--=_x\r\nContent-Transfer-Encoding: base64\r\n\r\n${'QUJDREVG'.repeat(9)}\r\n--=_x--\r\n`,
  'a body of some chunks': `${HEAD}\r\n\r\n${'The quick brown fox \t jumps  over. \r\n'.repeat(5000)}`,
};

interface Rig extends AsyncDisposable {
  readonly bind: Bind;
  readonly postfix: Postfix;
  readonly sink: LmtpSink;
}

/** Postfix, which hands mail to our milter and then to a sink. */
async function startRig(canonicalization: string, milterProtocol = 6): Promise<Rig> {
  await using cleanup = new AsyncDisposableStack();
  const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const ed = generateKeyPairSync('ed25519');
  const rsaRecord = rsa.publicKey.export({ type: 'spki', format: 'der' }).toString('base64');
  // RFC 8463 §4: the 32 raw octets, which close the SubjectPublicKeyInfo.
  const edRecord = ed.publicKey.export({ type: 'spki', format: 'der' }).subarray(-32).toString('base64');
  const bind = cleanup.use(
    await startBind({
      zones: {
        'olimpus.example': [
          `rsa._domainkey TXT ${txtData(`v=DKIM1; k=rsa; p=${rsaRecord}`)}`,
          `ed._domainkey TXT ${txtData(`v=DKIM1; k=ed25519; p=${edRecord}`)}`,
        ].join('\n'),
      },
    }),
  );
  const sink = cleanup.use(await LmtpSink.open());
  const postern = cleanup.use(
    await preparePostern({
      dnsPort: bind.port,
      config: `[signing]\ncanonicalization = "${canonicalization}"\nfolder = "keys"\n`,
    }),
  );
  const folder = join(postern.folder, 'keys', 'olimpus.example');
  await mkdir(folder, { recursive: true });
  for (const [name, { privateKey }] of [
    ['rsa', rsa],
    ['ed', ed],
  ] as const) {
    const pem = privateKey.export({ type: 'pkcs8', format: 'pem' });
    await writeFile(join(folder, `${name}.private`), pem, { mode: 0o600 });
  }
  await postern.start('milter');
  const postfix = cleanup.use(
    await startPostfix({
      hostname: 'mx.olimpus.example',
      domains: ['olimpus.example'],
      mailboxes: [ZEUS, HERA],
      smtpdMilters: postern.address.milter,
      nonSmtpdMilters: postern.address.milter,
      milterProtocol,
      milterDefaultAction: 'tempfail',
      virtualTransport: `lmtp:inet:127.0.0.1:${sink.port}`,
    }),
  );
  const stack = cleanup.move();
  return { bind, postfix, sink, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}

async function through({ postfix, sink }: Rig, message: string): Promise<Buffer> {
  const before = sink.mails.length;
  const { outcome } = await sendMail({
    port: postfix.smtpPort,
    from: ZEUS,
    to: [HERA],
    data: Buffer.from(message, 'latin1'),
  });
  expect(outcome.code).toBe(250);
  await postfix.waitForQueueEmpty();
  expect(sink.mails).toHaveLength(before + 1);
  return Buffer.from(sink.mails[before]?.content ?? '', 'latin1');
}

/** OpenDKIM of Debian knows no Ed25519: it is shown the RSA signature alone. */
function rsaAlone(message: Buffer): Buffer {
  const text = message.toString('latin1');
  const fields = text.match(/^DKIM-Signature:(?:[^\r]|\r(?!\n)|\r\n(?=[ \t]))*\r\n/gm) ?? [];
  const ed = fields.find((field) => /\ss=ed;/.test(field)) ?? '';
  expect(ed).not.toBe('');
  return Buffer.from(text.replace(ed, ''), 'latin1');
}

/** What OpenDKIM's tool itself can't verify: it refuses a message with two subjects, and takes an absent body for nothing where `simple` has a CRLF. */
const TOO_MUCH_FOR_OPENDKIM = new Set(['duplicate fields', 'header section only']);

async function judged(rig: Rig, delivered: Buffer): Promise<Record<string, unknown>> {
  const [mailauth, first, second, opendkim] = await Promise.all([
    verifyWithMailauth(delivered, rig.bind),
    dkimpyVerify(delivered, 0, rig.bind),
    dkimpyVerify(delivered, 1, rig.bind),
    opendkimVerify(rsaAlone(delivered), rig.bind),
  ]);
  return { mailauth: mailauth.toSorted(), dkimpy: [first, second], opendkim };
}

const GOOD = {
  mailauth: ['olimpus.example ed ed25519-sha256: pass', 'olimpus.example rsa rsa-sha256: pass'],
  dkimpy: ['signature ok', 'signature ok'],
  opendkim: { pass: true, text: '' },
};

describeWithNeighbours('signatures on awkward messages, as Postfix delivers them', () => {
  test.for([
    ['relaxed/relaxed', 6],
    ['simple/simple', 6],
    ['simple/relaxed', 6],
    ['relaxed/simple', 2],
  ] as const)(
    '%s, milter_protocol %i: mailauth, dkimpy and OpenDKIM verify them',
    { timeout: 240_000 },
    async ([canonicalization, milterProtocol]) => {
      await using rig = await startRig(canonicalization, milterProtocol);
      const results: [string, unknown][] = [];
      for (const [name, message] of Object.entries(CORPUS)) {
        const result = await judged(rig, await through(rig, message));
        results.push([
          name,
          TOO_MUCH_FOR_OPENDKIM.has(name) ? { ...result, opendkim: GOOD.opendkim } : result,
        ]);
      }
      expect(results).toEqual(Object.keys(CORPUS).map((name) => [name, GOOD]));
    },
  );

  test('a message without a line end at its end, from sendmail(1)', async () => {
    await using rig = await startRig('simple/simple');
    await rig.postfix.sendmail(`${HEAD}\n\nno line end`.replaceAll('\r', ''), { from: ZEUS, to: [HERA] });
    await rig.postfix.waitForQueueEmpty();
    const [mail] = rig.sink.mails;
    expect(await judged(rig, Buffer.from(mail?.content ?? '', 'latin1'))).toEqual(GOOD);
  });
});
