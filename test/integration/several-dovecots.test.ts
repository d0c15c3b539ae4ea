import { expect, test } from 'vitest';

import { startDovecot, type Dovecot } from '../support/neighbours/dovecot.ts';
import { startPostfix, type Postfix } from '../support/neighbours/postfix.ts';
import { sendMail } from '../support/neighbours/smtp-client.ts';
import { preparePostern, type PosternProcess } from '../support/postern.ts';
import { letter, PASSWORD } from '../support/site.ts';
import { describeWithNeighbours } from '../support/with-neighbours.ts';

const PATIENCE = { timeout: 120_000 };
/** So many that each Dovecot has some, whatever their ports. */
const USERS = Array.from({ length: 16 }, (_, number) => `god${number}@olimpus.example`);
const NAMES = ['one', 'other'] as const;

type Name = (typeof NAMES)[number];

/** A mail host with Dovecots that both know all mailboxes, each with mail of its own, so that it shows who was delivered to. */
interface TwoDovecots extends AsyncDisposable {
  readonly dovecots: Readonly<Record<Name, Dovecot>>;
  readonly postfix: Postfix;
  readonly process: PosternProcess;
  /** lmtp-filter, again after it was stopped. */
  restart(): Promise<void>;
  /** One message; resolves when Postfix has taken it. */
  send(to: readonly string[], subject: string): Promise<void>;
  /** Subjects in the mailbox of that user at that Dovecot, in order of the alphabet. */
  subjects(name: Name, user: string): Promise<string[]>;
}

async function startTwo(users: readonly string[]): Promise<TwoDovecots> {
  await using cleanup = new AsyncDisposableStack();
  const options = { users: Object.fromEntries(users.map((user) => [user, PASSWORD])) };
  const [one, other] = await Promise.all([startDovecot(options), startDovecot(options)]);
  cleanup.use(one);
  cleanup.use(other);
  const upstream = [one, other].map(({ lmtpPort }) => `"127.0.0.1:${lmtpPort}"`);
  const postern = cleanup.use(
    await preparePostern({ config: `lmtp-filter.upstream = [${upstream.join(', ')}]` }),
  );
  const postfix = cleanup.use(
    await startPostfix({
      domains: ['olimpus.example'],
      mailboxes: users,
      virtualTransport: `postern:${postern.address['lmtp-filter']}`,
    }),
  );
  const process = await postern.start('lmtp-filter');
  const dovecots = { one, other };
  const stack = cleanup.move();
  return {
    dovecots,
    postfix,
    process,
    async restart() {
      await postern.start('lmtp-filter');
    },
    async send(to, subject) {
      const data = letter({ Subject: subject, 'Message-ID': `<${subject}@valhalla.example>` });
      const { outcome } = await sendMail({ port: postfix.smtpPort, from: 'odin@valhalla.example', to, data });
      expect(outcome.code).toBe(250);
    },
    async subjects(name, user) {
      const messages = await dovecots[name].mailbox(user);
      return messages
        .map((message) => /^Subject: (.*?)\r?$/m.exec(message.toString('latin1'))?.[1] ?? '')
        .toSorted();
    },
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

/** Where each user's mail is, which is to be at one Dovecot alone and to have these subjects. */
async function placed(site: TwoDovecots, subjects: readonly string[]): Promise<Map<string, Name>> {
  const places = new Map<string, Name>();
  for (const user of USERS) {
    const [one, other] = [await site.subjects('one', user), await site.subjects('other', user)];
    expect([one, other].toSorted((a, b) => a.length - b.length)).toEqual([[], subjects.toSorted()]);
    places.set(user, one.length > 0 ? 'one' : 'other');
  }
  return places;
}

describeWithNeighbours('two Dovecots', () => {
  test('each mailbox is always at the same one; while it is away only its mail waits', PATIENCE, async () => {
    await using site = await startTwo(USERS);
    const { dovecots, postfix, process } = site;
    // One message for mailboxes at both, then one for each mailbox.
    await site.send(USERS, 'all');
    await Promise.all(USERS.map((user) => site.send([user], 'single')));
    await postfix.waitForQueueEmpty();
    const before = await placed(site, ['all', 'single']);
    const at = (name: Name): string[] => USERS.filter((user) => before.get(user) === name);
    expect(at('one').length).toBeGreaterThan(0);
    expect(at('other').length).toBeGreaterThan(0);

    await dovecots.other.stop();
    await site.send(USERS, 'away');
    // Those who can have it have it, in the same transaction in which the others are put off.
    for (const user of at('one')) await dovecots.one.waitForMessages(user, 3);
    await expect
      .poll(async () => (await postfix.queue()).flatMap(({ recipients }) => recipients.map((r) => r.address)))
      .toEqual(expect.arrayContaining(at('other')));
    const [waiting, ...more] = await postfix.queue();
    expect(more).toEqual([]);
    expect(waiting?.recipients.map(({ address }) => address).toSorted()).toEqual(at('other').toSorted());
    const metrics = await process.metrics();
    expect(metrics).toContain(`postern_lmtp_upstream_up{upstream="127.0.0.1:${dovecots.one.lmtpPort}"} 1`);
    expect(metrics).toContain(`postern_lmtp_upstream_up{upstream="127.0.0.1:${dovecots.other.lmtpPort}"} 0`);

    await dovecots.other.start();
    await postfix.waitForQueueEmpty();
    // Nobody stood in for it, and nobody has a second copy.
    expect(await placed(site, ['all', 'single', 'away'])).toEqual(before);
    expect(postfix.log()).not.toContain('status=bounced');
  });

  test(
    'another process chooses the same; and killed, it comes back as if it had been stopped',
    PATIENCE,
    async () => {
      await using site = await startTwo(USERS);
      const { dovecots, postfix } = site;
      await site.send(USERS, 'all');
      await postfix.waitForQueueEmpty();
      const before = await placed(site, ['all']);
      await dovecots.one.kill();
      await site.send(USERS, 'killed');
      await postfix.waitForLog(/status=deferred .*451 4\.4\.1 The mail store cannot be reached/);
      await site.process.stop();
      await dovecots.one.start();
      await site.restart();
      await postfix.flush();
      await postfix.waitForQueueEmpty();
      expect(await placed(site, ['all', 'killed'])).toEqual(before);
    },
  );
});
