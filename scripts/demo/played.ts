import { LmtpClient } from '../../test/support/players/lmtp-client.ts';
import { LmtpSink } from '../../test/support/players/lmtp-sink.ts';
import { applyAsPostfix, MilterClient } from '../../test/support/players/milter-client.ts';
import { PolicyClient } from '../../test/support/players/policy-client.ts';
import type { Driver } from './driver.ts';
import { ALICE, BOB, type DemoMail } from './mails.ts';
import type { Stage } from './stage.ts';

const HDR_LEADSPC = 0x100000;

/** Plays Postfix's and Dovecot's side over the three sockets, where the real ones can't be installed. There is no spamd. */
export async function startPlayed(): Promise<Driver> {
  return new PlayedDriver(await LmtpSink.open());
}

class PlayedDriver implements Driver {
  readonly #sink: LmtpSink;
  readonly #taken = new Map<string, number>();
  readonly spamd = null;
  #stage: Stage | null = null;
  #count = 0;

  constructor(sink: LmtpSink) {
    this.#sink = sink;
  }

  get upstream(): number {
    return this.#sink.port;
  }

  async connect(stage: Stage): Promise<void> {
    this.#stage = stage;
    await Promise.resolve();
  }

  async send(mail: DemoMail): Promise<readonly string[]> {
    if (this.#stage === null) throw new Error('not connected yet');
    const { port } = this.#stage;
    this.#count += 1;
    const client = mail.client ?? { addr: '203.0.113.7', name: 'laptop.example', helo: 'laptop.example' };
    const session = { port: 40_000 + this.#count, queueId: `DEMO${this.#count}` };
    const login = mail.client === null ? ALICE : '';
    const prepended: string[] = [];

    await using policy = await PolicyClient.open({ port: port.policyd });
    for (const recipient of mail.to) {
      const action = await policy.ask({
        client_address: client.addr,
        client_port: String(session.port),
        client_name: client.name,
        reverse_client_name: client.name,
        helo_name: client.helo,
        sender: mail.from,
        recipient,
        sasl_username: login,
        instance: `1.${this.#count}`,
      });
      if (action.startsWith('PREPEND ')) prepended.push(action.slice('PREPEND '.length));
      else if (action !== 'DUNNO') return [action];
    }

    const [section = '', body = ''] = mail.data.split('\r\n\r\n');
    const headers = section
      .replaceAll(/\r\n(?=[ \t])/g, '\n')
      .split('\r\n')
      .map((line): [string, string] => {
        const colon = line.indexOf(':');
        return [line.slice(0, colon), line.slice(colon + 1).replaceAll('\n', '\r\n')];
      });
    await using milter = await MilterClient.open({ port: port.milter });
    const message = {
      address: client.addr,
      port: session.port,
      host: client.name,
      helo: client.helo,
      ...(login === '' ? {} : { login, daemonName: 'ORIGINATING' }),
      queueId: session.queueId,
      from: `<${mail.from}>`,
      to: mail.to.map((to) => `<${to}>`),
      headers,
      body: Buffer.from(body, 'latin1'),
    };
    await milter.begin(message);
    const answer = await milter.message(message);
    milter.quit();
    if (answer.verdict === 'y') return [answer.text];
    if (!'ca'.includes(answer.verdict)) return [`450 4.7.1 the milter answered ${answer.verdict}`];

    const edited = applyAsPostfix(headers, answer.edits, (milter.flags & HDR_LEADSPC) !== 0);
    const received = `Received: from ${client.helo} (${client.name} [${client.addr}])\r\n\tby mx.demo.example (Postfix) with ESMTP id ${session.queueId};\r\n\t${new Date().toUTCString()}`;
    // What the milter inserts at index 0 goes above Postfix's own field, and so do the policy server's.
    const above = answer.edits.filter(({ action, index }) => action === 'insert' && index === 0).length;
    const written = edited.map(([name, value]) => `${name}:${value}`);
    const lines = [...written.slice(0, above), ...prepended, received, ...written.slice(above)];
    await using lmtp = await LmtpClient.open({ port: port['lmtp-filter'] });
    const outcome = await lmtp.send({
      from: `<${mail.from}>`,
      to: mail.to.map((to) => `<${to}>`),
      content: Buffer.from(`${lines.join('\r\n')}\r\n\r\n${body}`, 'latin1'),
      forward: { NAME: client.name, ADDR: client.addr, IDENT: session.queueId, SOURCE: 'REMOTE' },
    });
    await lmtp.quit();
    return [...outcome.recipients, ...outcome.delivered];
  }

  async collect(recipient: string): Promise<string | null> {
    const mine = this.#sink.mails.filter(({ to }) => to.includes(`<${recipient}>`));
    const taken = this.#taken.get(recipient) ?? 0;
    this.#taken.set(recipient, mine.length);
    await Promise.resolve();
    return mine.length > taken ? (mine.at(-1)?.content ?? null) : null;
  }

  how(stage: Stage): readonly string[] {
    return [
      `Postfix and Dovecot are not here, so there is no SMTP port to send to. The three daemons listen for whoever plays them: policyd ${stage.port.policyd}, milter ${stage.port.milter}, lmtp-filter ${stage.port['lmtp-filter']}.`,
      `Mail for ${BOB} goes to the LMTP port ${this.upstream}.`,
    ];
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#sink[Symbol.asyncDispose]();
  }
}
