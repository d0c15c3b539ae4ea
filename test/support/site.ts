import { generateKeyPairSync, type KeyObject } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { privateFolder } from './neighbours/folder.ts';
import { startBind, txtData, type Bind } from './neighbours/bind.ts';
import { startDovecot, type Dovecot, type DovecotOptions } from './neighbours/dovecot.ts';
import { startPostfix, type Postfix, type PostfixOptions } from './neighbours/postfix.ts';
import { startSpamd, type Spamd, type SpamdOptions } from './neighbours/spamd.ts';
import { preparePostern, type DaemonName, type Postern, type PosternProcess } from './postern.ts';

export const ZEUS = 'zeus@olimpus.example';
export const HERA = 'hera@olimpus.example';
export const PASSWORD = 'nectar';

/** The host that valhalla.example sends from, and one that it does not. */
export const ODIN = { addr: '192.0.2.20', name: 'odin.valhalla.example', helo: 'odin.valhalla.example' };
export const LOKI = { addr: '198.51.100.66', name: 'loki.example', helo: 'loki.example' };

export const GTUBE = 'XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X';
/** Six points by a rule of our own, so that a score between two thresholds can be had offline. */
export const SPECIAL_OFFER = 'a very special offer for mortals';

export interface SiteOptions {
  /** With what its local.cf says beyond that of a plain server. */
  readonly spamd?: boolean | SpamdOptions;
  readonly unix?: boolean;
  readonly config?: string;
  readonly dovecot?: Partial<DovecotOptions>;
  readonly postfix?: PostfixOptions;
  /** Signing keys for olimpus.example. */
  readonly signing?: boolean;
  /** policyd is asked in smtpd_end_of_data_restrictions, too. */
  readonly endOfData?: boolean;
  /** Daemons to start, each list one process; default: all three in one. */
  readonly processes?: readonly (readonly DaemonName[])[];
}

/** One mail host: real Postfix, Dovecot, BIND and (if asked for) spamd, with Postern between them, as `postern wire` says. */
export interface Site extends AsyncDisposable {
  readonly bind: Bind;
  readonly dovecot: Dovecot;
  readonly postfix: Postfix;
  readonly spamd: Spamd | null;
  readonly postern: Postern;
  readonly processes: readonly PosternProcess[];
  /** Key of valhalla.example, published as `mail._domainkey`. */
  readonly senderKey: KeyObject;
}

export async function startSite(options: SiteOptions = {}): Promise<Site> {
  await using cleanup = new AsyncDisposableStack();
  const folder = cleanup.use(await privateFolder('site'));
  const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const ed25519 = generateKeyPairSync('ed25519');
  const sender = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const [bind, spamd, dovecot] = await Promise.all([
    startBind({
      zones: {
        'olimpus.example': [
          '@ TXT "v=spf1 ip4:192.0.2.10 -all"',
          `mail._domainkey TXT ${txtData(dkimRecord('rsa', rsa.publicKey))}`,
          `ed._domainkey TXT ${txtData(dkimRecord('ed25519', ed25519.publicKey))}`,
        ].join('\n'),
        'valhalla.example': [
          '@ TXT "v=spf1 ip4:192.0.2.20 -all"',
          '_dmarc TXT "v=DMARC1; p=reject"',
          `mail._domainkey TXT ${txtData(dkimRecord('rsa', sender.publicKey))}`,
        ].join('\n'),
      },
    }),
    options.spamd === undefined || options.spamd === false ? null : startSpamd(spamdOptions(options.spamd)),
    startDovecot({ users: { [ZEUS]: PASSWORD, [HERA]: PASSWORD }, ...options.dovecot }),
  ]);
  cleanup.use(bind);
  if (spamd !== null) cleanup.use(spamd);
  cleanup.use(dovecot);

  const keys = {
    mail: await keyFile(folder.path, 'mail', rsa.privateKey),
    ed: await keyFile(folder.path, 'ed', ed25519.privateKey),
  };
  const signing = Object.entries(keys).map(
    ([selector, file]) =>
      `[[signing.key]]\ndomain = "olimpus.example"\nselector = "${selector}"\nfile = ${JSON.stringify(file)}\n`,
  );
  const postern = cleanup.use(
    await preparePostern({
      upstream: options.unix === true ? `unix:${dovecot.lmtpSocket}` : `127.0.0.1:${dovecot.lmtpPort}`,
      dnsPort: bind.port,
      ...(spamd === null ? {} : { spamdPort: spamd.port }),
      ...(options.unix === true ? { unix: true } : {}),
      config: `${options.config ?? ''}\n${options.signing === false ? '' : signing.join('')}`,
    }),
  );
  const processes: PosternProcess[] = [];
  for (const daemons of options.processes ?? [[]]) processes.push(await postern.start(...daemons));

  const postfix = cleanup.use(
    await startPostfix({
      hostname: 'mx.olimpus.example',
      domains: ['olimpus.example'],
      mailboxes: [ZEUS, HERA],
      saslSocket: dovecot.authSocket,
      policyService: postern.address.policyd,
      ...(options.endOfData === true ? { endOfDataPolicyService: postern.address.policyd } : {}),
      smtpdMilters: postern.address.milter,
      nonSmtpdMilters: postern.address.milter,
      milterDefaultAction: 'tempfail',
      virtualTransport: `postern:${postern.address['lmtp-filter']}`,
      ...options.postfix,
    }),
  );
  const stack = cleanup.move();
  return {
    bind,
    dovecot,
    postfix,
    spamd,
    postern,
    processes,
    senderKey: sender.privateKey,
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

function spamdOptions(options: true | SpamdOptions): SpamdOptions {
  const offer = [
    'body POSTERN_OFFER /a very special offer/',
    'score POSTERN_OFFER 6.0',
    'describe POSTERN_OFFER Offer',
  ];
  return options === true
    ? { localCf: offer }
    : { ...options, localCf: [...offer, ...(options.localCf ?? [])] };
}

/** A plain message; lines end in CRLF. */
export function letter(
  fields: Readonly<Record<string, string>>,
  body = 'Hello from the other side.\r\n',
): string {
  const all = {
    From: 'Odin <odin@valhalla.example>',
    To: 'zeus@olimpus.example',
    Subject: 'greetings',
    Date: 'Sat, 21 Nov 2026 09:00:00 +0000',
    'Message-ID': `<${Math.random().toString(36).slice(2)}@valhalla.example>`,
    ...fields,
  };
  return `${Object.entries(all)
    .map(([name, value]) => `${name}: ${value}\r\n`)
    .join('')}\r\n${body}`;
}

async function keyFile(folder: string, name: string, key: KeyObject): Promise<string> {
  const path = join(folder, `${name}.private`);
  await writeFile(path, key.export({ type: 'pkcs8', format: 'pem' }), { mode: 0o600 });
  return path;
}

function dkimRecord(kind: 'rsa' | 'ed25519', key: KeyObject): string {
  const der = key.export({ type: 'spki', format: 'der' });
  // RFC 8463 §4: the 32 raw octets, which close the SubjectPublicKeyInfo.
  return `v=DKIM1; k=${kind}; p=${(kind === 'rsa' ? der : der.subarray(-32)).toString('base64')}`;
}
