import { expect, test } from 'vitest';

import { authorCheck } from '../../../src/checks/author.ts';
import { messageCheck, type CheckDefinition, type CheckTools } from '../../../src/checks/check.ts';
import { senderCheck } from '../../../src/checks/sender.ts';
import { milterMetrics } from '../../../src/milter/metrics.ts';
import { negotiate } from '../../../src/milter/negotiate.ts';
import { Session } from '../../../src/milter/session.ts';
import { Transaction } from '../../../src/milter/transaction.ts';
import { CommandDecoder } from '../../../src/milter/wire.ts';
import { NO_DIRECTORY } from '../../support/checks.ts';
import { client } from '../../support/mail.ts';
import { BEGIN } from './rig.ts';
import { configOf, DATA, EOH, EOM, MAIL, packet, RCPT, testTools } from './support.ts';

const ENABLED = 'checks.sender.enabled = true\n';
const ZEUS = 'zeus@olimpus.example';

function tools(): CheckTools {
  return {
    ...testTools().checks,
    directory: {
      ...NO_DIRECTORY,
      account: () => ({ limits: new Map(), senders: [] }),
      owns: () => false,
    },
  };
}

/** The milter's last answer to a message of zeus with this header section. */
async function answer(from: readonly string[], login = ZEUS): Promise<string> {
  const { log, store, registry, keys, quarantine } = testTools();
  const config = await configOf(ENABLED, [senderCheck, authorCheck]);
  const session = new Session(config, {
    log,
    store,
    keys,
    quarantine,
    checks: tools(),
    metrics: milterMetrics(registry),
  });
  const decoder = new CommandDecoder();
  const fields = from.map((value) => packet('L', `From\0 ${value}\0`));
  decoder.push(
    Buffer.concat([
      ...BEGIN,
      packet('D', 'M', `{auth_authen}\0${login}\0`),
      MAIL,
      RCPT,
      DATA,
      ...fields,
      EOH,
      packet('B', 'Hello\r\n'),
      EOM,
    ]),
  );
  let last: Buffer | null = null;
  for (let command = decoder.next(); command !== null; command = decoder.next()) {
    if (command.kind === 'quit') throw new Error('nobody said QUIT');
    last = await session.handle(command);
  }
  return last?.toString('latin1') ?? '';
}

const REFUSED = '550 5.7.1 This login may not send as the address in From';

test.each([
  ['its own From', [`Zeus <${ZEUS}>`], false],
  ['the From of another', ['Hera <hera@olimpus.example>'], true],
  ['two From fields', [ZEUS, ZEUS], true],
])('mail of a login with %s', async (_, from, refused) => {
  expect((await answer(from)).includes(REFUSED)).toBe(refused);
});

const readsBody = messageCheck({
  name: 'reads',
  stage: 'message',
  summary: 'Reads the body.',
  directions: ['out'],
  needs: [],
  codes: {},
  unavailable: 'defer',
  deadline: '1s',
  options: {},
  run: () => [],
});

test.each<[what: string, checks: readonly CheckDefinition[], kept: boolean]>([
  ['no check', [], false],
  ['a check of the header section', [senderCheck, authorCheck], false],
  ['a check of the body too', [senderCheck, authorCheck, readsBody], true],
])('outgoing mail with %s: whether its body is kept', async (_, checks, kept) => {
  const { log, store, registry, keys, quarantine } = testTools();
  const config = await configOf(checks.length === 0 ? '' : ENABLED, checks);
  const terms = negotiate({ version: 6, actions: 0x1ff, protocol: 0x1fffff });
  const context = {
    config,
    terms,
    keys,
    quarantine,
    checks: tools(),
    store,
    log,
    metrics: milterMetrics(registry),
  };
  const origin = { client: client({ login: ZEUS }), direction: 'out', nonSmtp: false } as const;
  const message = new Transaction(context, origin, `<${ZEUS}>`, []);
  expect(message.spool !== null).toBe(kept);
  message.endHeaders();
  await message.body(Buffer.from('Hello\r\n'));
  message.end();
  expect(message.keptBody.size).toBe(7);
  expect(await textOf(message)).toBe(
    kept ? 'Hello\r\n' : 'the body was not kept: no check that reads it was to be made',
  );
  message.release();
});

/** The body, or why it can't be read. */
async function textOf({ keptBody }: Transaction): Promise<string> {
  let text = '';
  try {
    for await (const chunk of keptBody.chunks()) text += Buffer.from(chunk).toString();
  } catch (error) {
    return error instanceof Error ? error.message : '';
  }
  return text;
}
