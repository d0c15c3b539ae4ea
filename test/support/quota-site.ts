import { chmod, writeFile } from 'node:fs/promises';

import { z } from 'zod';

import { dovecotQuotaLines } from '../../src/cli/wire-dovecot-quota.ts';
import { loadConfig } from '../../src/config/load.ts';
import { privateFolder } from './neighbours/folder.ts';
import { freePort } from './neighbours/ports.ts';
import { startRedis, type RedisServer } from './neighbours/redis.ts';
import { SmtpClient } from './neighbours/smtp-client.ts';
import { startGoBetween, type GoBetween } from './players/go-between.ts';
import { HERA, letter, PASSWORD, startSite, ZEUS, type Site } from './site.ts';

export interface QuotaSiteOptions {
  /** Of each user, as quota_rule says it; default `40M`. */
  readonly quotas?: Readonly<Record<string, string>>;
  /** Dovecot's quota_grace, and ours; default `10%`. */
  readonly grace?: string;
  /** virtual_alias_maps, for Postfix and Postern alike. */
  readonly aliases?: Readonly<Record<string, string>>;
  /** Whether Dovecot writes usage to Redis, and Postern reads it there; default: yes. */
  readonly clone?: boolean;
  /** Whether Postern may ask doveadm; default: yes. */
  readonly doveadm?: boolean;
  /** Further lines of postern.toml; begins with a table. */
  readonly config?: string;
  readonly main?: Readonly<Record<string, string>>;
}

export interface QuotaSite extends AsyncDisposable {
  readonly site: Site;
  readonly redis: RedisServer;
  /** Stands between Postern and Dovecot's doveadm. */
  readonly doveadm: GoBetween;
  /** Puts mail of so many octets into a mailbox, past Postern. */
  fill(user: string, octets: number): Promise<void>;
  /** What doveadm says of the usage, in octets. */
  used(user: string): Promise<number>;
}

const MESSAGE = 5_000_000;

const ROWS = z.array(z.looseObject({ type: z.string(), value: z.string() }));

export const PREFIX = 'dovecot-quota/';

/** A whole mail host as in site.ts, whose Dovecot has quotas and tells of them by the lines of `postern wire dovecot`. */
export async function startQuotaSite(options: QuotaSiteOptions = {}): Promise<QuotaSite> {
  await using cleanup = new AsyncDisposableStack();
  const folder = cleanup.use(await privateFolder('quota'));
  const redis = cleanup.use(await startRedis());
  const doveadmPort = await freePort();
  const doveadm = cleanup.use(await startGoBetween(doveadmPort));
  const keyFile = folder.join('doveadm.key');
  await writeFile(keyFile, 'the key of the gates of hades');
  await chmod(keyFile, 0o600);
  const aliases = folder.join('aliases');
  await writeFile(
    aliases,
    Object.entries(options.aliases ?? {})
      .map(([from, to]) => `${from} ${to}\n`)
      .join(''),
  );
  const { grace = '10%' } = options;
  const { clone = true } = options;
  const configOf = (port: number): string[] => [
    'directory.mailbox_domains = ["olimpus.example"]',
    `directory.aliases = [${JSON.stringify(aliases)}]`,
    ...(options.doveadm === false ? [] : [`dovecot.doveadm = "127.0.0.1:${port}"`]),
    `dovecot.api_key_file = ${JSON.stringify(keyFile)}`,
    `dovecot.quota_grace = "${grace}"`,
    ...(clone ? [`dovecot.quota_clone.address = "127.0.0.1:${redis.port}"`] : []),
  ];
  const configFile = folder.join('wire.toml');
  await writeFile(configFile, configOf(doveadmPort).join('\n'));
  const loaded = await loadConfig(configFile);
  if (!loaded.ok) throw new Error(JSON.stringify(loaded.problems));

  const site = cleanup.use(
    await startSite({
      config: [...configOf(doveadm.port), options.config ?? ''].join('\n'),
      endOfData: true,
      dovecot: {
        users: Object.fromEntries(
          [ZEUS, HERA].map((user) => [user, { password: PASSWORD, quota: options.quotas?.[user] ?? '40M' }]),
        ),
        early: dovecotQuotaLines(loaded.config).join('\n'),
        // The last word: the test's own Dovecot says otherwise further up.
        extra: `lmtp_rcpt_check_quota = yes\nplugin {\n  quota_grace = ${grace.replace('%', '%%')}\n}`,
      },
      postfix: {
        aliases: options.aliases ?? {},
        main: {
          smtpd_client_connection_count_limit: '0',
          default_process_limit: '150',
          ...options.main,
        },
      },
    }),
  );
  const stack = cleanup.move();
  const used = async (user: string): Promise<number> => {
    const answer = await site.dovecot.doveadm('-f', 'json', 'quota', 'get', '-u', user);
    const storage = ROWS.parse(JSON.parse(answer)).find(({ type }) => type === 'STORAGE');
    return Number(storage?.value) * 1024;
  };
  return {
    site,
    redis,
    doveadm,
    async fill(user, octets) {
      await using client = await SmtpClient.connect({ host: '127.0.0.1', port: site.dovecot.lmtpPort });
      await client.lhlo('fill.example');
      for (let left = octets; left > 0; left -= MESSAGE) {
        await client.mail('fill@valhalla.example');
        await client.rcpt(user);
        const { replies } = await client.data(big(Math.min(left, MESSAGE)));
        if (replies[0]?.code !== 250) throw new Error(`not stored: ${replies[0]?.text}`);
      }
    },
    used,
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

/** A message of about so many octets, lines and all. */
export function big(octets: number, fields: Readonly<Record<string, string>> = {}): string {
  const head = letter(fields, '');
  const line = `${'0123456789'.repeat(7)}\r\n`;
  const lines = Math.max(0, Math.floor((octets - head.length) / line.length));
  return head + line.repeat(lines);
}
