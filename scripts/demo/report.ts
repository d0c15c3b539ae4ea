import { styleText } from 'node:util';

import type { DemoMail } from './mails.ts';

export interface RecordedDecision {
  readonly daemon: string;
  readonly trace: string;
  readonly sender: string;
  readonly recipients: readonly string[];
  readonly verdict: string;
  readonly rule: string;
  readonly why: string;
  readonly score: number | null;
}

export interface Happened {
  /** All replies of the SMTP session that matter, oldest first; the last one is the client's last word. */
  readonly replies: readonly string[];
  /** By recipient: the whole message as its mailbox shows it; null: none came. */
  readonly delivered: ReadonlyMap<string, string | null>;
  readonly decisions: readonly RecordedDecision[];
}

const SHOWN =
  /^(?:Authentication-Results|Received-SPF|DKIM-Signature|Subject|X-Spam-Flag|X-Spam-Status|X-Postern-\w+): .*$/gim;

/** Prints what became of one mail, and returns what differs from what was expected. */
export function report(number: number, mail: DemoMail, happened: Happened): string[] {
  const wrong: string[] = [];
  console.log(`\n${styleText('bold', `${number}. ${mail.title}`)}`);
  console.log(
    `   from <${mail.from}> at ${mail.client?.addr ?? 'a login'} to ${mail.to.map((to) => `<${to}>`).join(' ')}`,
  );
  for (const reply of happened.replies) console.log(`   the client was told   ${reply}`);
  const last = happened.replies.at(-1) ?? '';
  if (!mail.expect.reply.test(last))
    wrong.push(`the client was told "${last}", expected ${mail.expect.reply}`);

  for (const [recipient, wanted] of Object.entries(mail.expect.delivered)) {
    const message = happened.delivered.get(recipient) ?? null;
    if (message === null) {
      console.log(`   ${recipient}: nothing was delivered`);
      if (wanted !== null) wrong.push(`${recipient} got nothing`);
      continue;
    }
    const section = (message.split('\r\n\r\n')[0] ?? '')
      .replaceAll(/\r\n[ \t]+/g, ' ')
      .replaceAll('\r\n', '\n');
    console.log(`   ${recipient}: delivered to INBOX with`);
    for (const line of section.match(SHOWN) ?? []) console.log(styleText('dim', `      ${cut(line, 150)}`));
    if (wanted === null) wrong.push(`${recipient} got the message`);
    for (const pattern of wanted ?? []) {
      if (!pattern.test(section)) wrong.push(`${recipient}: no line matches ${pattern}`);
    }
  }

  for (const { daemon, verdict, rule, why, score, recipients } of happened.decisions) {
    const points = score === null ? '' : `, score ${score}`;
    console.log(
      `   ${daemon.padEnd(11)} ${styleText('cyan', verdict)} by rule ${rule}${points} for ${recipients.join(' ')}${why === '' ? '' : `: ${cut(why, 140)}`}`,
    );
  }
  const trace = happened.decisions[0]?.trace;
  if (trace !== undefined) console.log(`   trace       ${trace}`);
  const { daemon, verdict, rule } = mail.expect.decision;
  if (
    !happened.decisions.some((one) => one.daemon === daemon && one.verdict === verdict && one.rule === rule)
  ) {
    wrong.push(`no decision "${verdict} by ${rule}" of ${daemon} is on record`);
  }
  console.log(
    wrong.length === 0
      ? styleText('green', '   as expected')
      : styleText('red', `   NOT as expected: ${wrong.join('; ')}`),
  );
  return wrong;
}

function cut(text: string, limit: number): string {
  return text.length > limit ? `${text.slice(0, limit - 1)}…` : text;
}
