import type { KeyObject } from 'node:crypto';

import { HeaderList } from '../../src/mail/header.ts';
import { DkimSigner } from '../../src/milter/dkim-signer.ts';
import type { SigningKey } from '../../src/ports/signing-keys.ts';

export const DOMAIN = 'demo.example';
export const BOB = `bob@${DOMAIN}`;
export const CAROL = `carol@${DOMAIN}`;
export const ALICE = `alice@${DOMAIN}`;
export const PASSWORD = 'demo';

/** A host that friend.example sends from, and one that it does not. */
const FRIEND = { addr: '192.0.2.25', name: 'mail.friend.example', helo: 'mail.friend.example' };
const STRANGER = {
  addr: '198.51.100.99',
  name: 'host.stranger.example',
  helo: 'host.stranger.example',
};

const GTUBE = 'XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X';
/** The demo's spamd has a rule of its own for this, with six points. */
export const OFFER = 'a very special offer';

export interface Client {
  readonly addr: string;
  readonly name: string;
  readonly helo: string;
}

export interface DemoMail {
  readonly title: string;
  /** null: submitted with alice's login. */
  readonly client: Client | null;
  readonly from: string;
  readonly to: readonly string[];
  readonly data: string;
  /** What must come of it. */
  readonly expect: Expectation;
}

export interface Expectation {
  /** What the SMTP client is told last. */
  readonly reply: RegExp;
  /** For each recipient: what the delivered message's header section must show; null: nothing is delivered. */
  readonly delivered: Readonly<Record<string, readonly RegExp[] | null>>;
  /** Daemon and rule of a decision that must be on record. */
  readonly decision: { readonly daemon: string; readonly verdict: string; readonly rule: string };
}

/** `scored`: whether a spamd is there. */
export async function demoMails(friendKey: KeyObject, scored: boolean): Promise<DemoMail[]> {
  const spam = [
    /^Subject: \[SPAM\] Hello$/m,
    /^X-Spam-Flag: YES$/m,
    /^X-Spam-Status: Yes, score=\d+.*GTUBE/m,
  ];
  const clean = letter('friend@friend.example', BOB, 'Lunch', 'Shall we have lunch on Monday?');
  return [
    {
      title: 'a clean mail from friend.example, DKIM-signed by it',
      client: FRIEND,
      from: 'friend@friend.example',
      to: [BOB],
      data: await signed(clean, 'friend.example', friendKey),
      expect: {
        reply: /^250 /,
        delivered: {
          [BOB]: [
            /^Authentication-Results: .*spf=pass.*dkim=pass.*dmarc=pass/m,
            /^Received-SPF: pass/im,
            /^Subject: Lunch$/m,
          ],
        },
        decision: { daemon: 'milter', verdict: 'accept', rule: 'default' },
      },
    },
    {
      title: "spam: SpamAssassin's own test message, GTUBE",
      client: FRIEND,
      from: 'friend@friend.example',
      to: [BOB],
      data: letter('friend@friend.example', BOB, 'Hello', GTUBE),
      expect: {
        reply: /^250 /,
        delivered: { [BOB]: scored ? spam : [/^Subject: Hello$/m] },
        decision: { daemon: 'milter', verdict: 'accept', rule: scored ? 'score>=5' : 'default' },
      },
    },
    {
      title: 'a mail that claims to be from friend.example, from a host its SPF record does not allow',
      client: STRANGER,
      from: 'friend@friend.example',
      to: [BOB],
      data: letter('friend@friend.example', BOB, 'Your invoice', 'Please pay at once.'),
      expect: {
        reply: /^550 5\.7\.23 .*SPF/,
        delivered: { [BOB]: null },
        decision: { daemon: 'policyd', verdict: 'reject', rule: 'spf.fail' },
      },
    },
    {
      title: 'outgoing mail: alice, logged in, writes to bob; it is signed',
      client: null,
      from: ALICE,
      to: [BOB],
      data: letter(ALICE, BOB, 'From your colleague', 'This one is signed on its way out.'),
      expect: {
        reply: /^250 /,
        delivered: { [BOB]: [/^DKIM-Signature: .*d=demo\.example/m, /^Subject: From your colleague$/m] },
        decision: { daemon: 'milter', verdict: 'accept', rule: 'default' },
      },
    },
    {
      title: 'one mail to two recipients: bob has the usual threshold (5), carol wants more mail (50)',
      client: FRIEND,
      from: 'friend@friend.example',
      to: [BOB, CAROL],
      data: letter('friend@friend.example', `${BOB}, ${CAROL}`, 'Cheap', `This is ${OFFER}.`),
      expect: {
        reply: /^250 /,
        delivered: {
          [BOB]: scored
            ? [/^Subject: \[SPAM\] Cheap$/m, /^X-Spam-Status: Yes, .*required=5\.0/m]
            : [/^Subject: Cheap$/m],
          [CAROL]: scored
            ? [/^Subject: Cheap$/m, /^X-Spam-Status: No, .*required=50\.0/m]
            : [/^Subject: Cheap$/m],
        },
        decision: { daemon: 'lmtp-filter', verdict: 'accept', rule: scored ? 'score>=5' : 'default' },
      },
    },
  ];
}

function letter(from: string, to: string, subject: string, body: string): string {
  const id = Math.random().toString(36).slice(2);
  const fields = [
    `From: ${from}`,
    `To: ${to}`,
    `Subject: ${subject}`,
    `Date: ${new Date().toUTCString().replace('GMT', '+0000')}`,
    `Message-ID: <${id}@${from.split('@')[1] ?? DOMAIN}>`,
    'MIME-Version: 1.0',
    'Content-Type: text/plain; charset=us-ascii',
  ];
  return `${fields.join('\r\n')}\r\n\r\n${body}\r\n`;
}

/** Signed as friend.example's own server would. */
async function signed(message: string, domain: string, privateKey: KeyObject): Promise<string> {
  const [section = '', body = ''] = message.split('\r\n\r\n');
  const key: SigningKey = {
    domain,
    selector: 'mail',
    subdomains: false,
    algorithm: 'rsa-sha256',
    key: privateKey,
  };
  const signing = {
    headerCanonicalization: 'relaxed',
    bodyCanonicalization: 'relaxed',
    oversign: ['From'],
    expire: null,
    lineLimit: 998,
  } as const;
  const signer = new DkimSigner(signing);
  signer.body(Buffer.from(body, 'latin1'));
  const headers = section.split('\r\n').map((line) => {
    const colon = line.indexOf(':');
    return { name: line.slice(0, colon), value: line.slice(colon + 1) };
  });
  const fields = await signer.sign([key], new HeaderList(headers), Math.floor(Date.now() / 1000));
  return `${fields.map(({ name, value }) => `${name}:${value}\r\n`).join('')}${message}`;
}
