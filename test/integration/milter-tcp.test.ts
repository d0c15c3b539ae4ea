import { createServer, type Server } from 'node:net';

import { expect, test } from 'vitest';

import { startPostfix, type Postfix } from '../support/neighbours/postfix.ts';
import { SmtpClient } from '../support/neighbours/smtp-client.ts';
import { preparePostern } from '../support/postern.ts';
import { letter } from '../support/site.ts';
import { describeWithNeighbours } from '../support/with-neighbours.ts';

const ZEUS = 'zeus@olimpus.example';
const NO_DNS =
  '[checks]\nspf.enabled = false\ndkim.enabled = false\narc.enabled = false\ndmarc.enabled = false\n';
const MESSAGES = 40;
/** A delayed acknowledgement takes 40 ms on Linux (TCP_DELACK_MIN), less a tick of its clock, and comes with every message or with none. */
const DELAYED_MS = 30;

/** Milliseconds from the message to its 250, of the fastest quarter of many: those that a busy machine did not disturb. */
async function quartile(postfix: Postfix): Promise<number> {
  await using client = await SmtpClient.connect({ port: postfix.smtpPort, host: '127.0.0.1' });
  await client.ehlo('client.example');
  const times: number[] = [];
  for (let number = 0; number < MESSAGES; number++) {
    await client.mail('thor@valhalla.example');
    await client.rcpt(ZEUS);
    expect((await client.command('DATA')).code).toBe(354);
    const begun = performance.now();
    client.writeRaw(`${letter({}, `${'x'.repeat(70)}\r\n`.repeat(25))}.\r\n`);
    expect((await client.readReply()).code).toBe(250);
    times.push(performance.now() - begun);
  }
  await client.quit();
  times.sort((a, b) => a - b);
  return times[MESSAGES / 4] ?? 0;
}

function behind(milter: string): Promise<Postfix> {
  return startPostfix({
    domains: ['olimpus.example'],
    mailboxes: [ZEUS],
    smtpdMilters: milter,
    milterDefaultAction: 'tempfail',
  });
}

/** A milter that asks for silence up to and including DATA, as it would seem best, and accepts everything. */
async function silentMilter(): Promise<Server> {
  const answer = Buffer.from('0000000d4f0000000600000000000ff080', 'hex');
  const go = Buffer.from('0000000163', 'hex');
  const server = createServer({ noDelay: true }, (socket) => {
    let held = Buffer.alloc(0);
    socket.on('error', () => socket.destroy());
    socket.on('data', (chunk: Buffer) => {
      held = Buffer.concat([held, chunk]);
      for (
        let end = 0;
        held.length >= 4 && held.length >= (end = 4 + held.readUInt32BE(0));
        held = held.subarray(end)
      ) {
        const code = held.toString('latin1', 4, 5);
        if (code === 'O') socket.write(answer);
        if (code === 'E') socket.write(go);
      }
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return server;
}

describeWithNeighbours('the time of a message over TCP', () => {
  test('no message waits for a delayed acknowledgement', async () => {
    await using postern = await preparePostern({ config: NO_DNS });
    await postern.start('milter');
    await using postfix = await behind(postern.address.milter);
    expect(await quartile(postfix)).toBeLessThan(DELAYED_MS);
  });

  test('that can be told from one that does: a milter that is silent at DATA', async () => {
    const server = await silentMilter();
    try {
      const address = server.address();
      if (typeof address !== 'object' || address === null) throw new Error('not listening');
      await using postfix = await behind(`inet:127.0.0.1:${address.port}`);
      expect(await quartile(postfix)).toBeGreaterThan(DELAYED_MS);
    } finally {
      server.close();
    }
  });
});
