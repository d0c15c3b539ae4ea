import { startDovecot, type Dovecot, type DovecotOptions } from './neighbours/dovecot.ts';
import { LmtpClient } from './players/lmtp-client.ts';
import { preparePostern, type Postern, type PosternProcess } from './postern.ts';
import { HERA, PASSWORD, ZEUS } from './site.ts';

/** lmtp-filter alone, with a real Dovecot behind it. */
export interface LmtpSite extends AsyncDisposable {
  readonly dovecot: Dovecot;
  readonly postern: Postern;
  readonly process: PosternProcess;
  readonly target: { readonly port: number };
  /** Sends as Postfix does for mail of this host, which is not checked; the reply for each recipient. */
  send(to: readonly string[], content: string | Uint8Array, queueId?: string): Promise<readonly string[]>;
}

export interface LmtpSiteOptions {
  readonly dovecot?: Partial<DovecotOptions>;
  /** Keys of postern.toml. */
  readonly config?: string;
}

export async function startLmtpSite(options: LmtpSiteOptions = {}): Promise<LmtpSite> {
  await using cleanup = new AsyncDisposableStack();
  const dovecot = cleanup.use(
    await startDovecot({ users: { [ZEUS]: PASSWORD, [HERA]: PASSWORD }, ...options.dovecot }),
  );
  const postern = cleanup.use(
    await preparePostern({
      upstream: `127.0.0.1:${dovecot.lmtpPort}`,
      ...(options.config === undefined ? {} : { config: options.config }),
    }),
  );
  const process = await postern.start('lmtp-filter');
  const target = { port: postern.port['lmtp-filter'] };
  const stack = cleanup.move();
  return {
    dovecot,
    postern,
    process,
    target,
    async send(to, content, queueId = 'LOCAL1') {
      await using client = await LmtpClient.open(target);
      const { recipients, delivered } = await client.send({
        from: '<odin@valhalla.example>',
        to: to.map((address) => `<${address}>`),
        content: typeof content === 'string' ? Buffer.from(content, 'latin1') : content,
        forward: { IDENT: queueId, SOURCE: 'LOCAL' },
      });
      const replies = delivered[Symbol.iterator]();
      return recipients.map((reply) => (reply.startsWith('2') ? (replies.next().value ?? 'none') : reply));
    },
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}
