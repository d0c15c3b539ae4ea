import { open } from 'node:fs/promises';

import type { LessonFolder } from '../adapters/lesson-folder.ts';
import type { Config } from '../config/config.ts';
import { messageIdKey, readMail } from '../feedback/lesson-content.ts';
import { isUserName } from '../feedback/script-request.ts';
import { LessonsFull, type Lesson, type SpamTeacher } from '../ports/lessons.ts';
import { NeighbourError } from '../ports/neighbour-error.ts';
import { LABEL_KINDS, type LabelKind, type Store } from '../ports/store.ts';
import { printable } from '../mail/reply.ts';
import { EXIT, readArguments, UsageError } from './arguments.ts';
import { causes } from './causes.ts';
import { systemClock as clock } from './clock.ts';
import { readConfig } from './config-file.ts';
import { openLessons, openPupil } from './open-feedback.ts';
import { openLabels } from './open-store.ts';

const HELP = `Usage: postern learn spam|ham [--user USER] [FILE...] [--config FILE]
       postern learn spam|ham [--user USER] --message-id ID [--config FILE]

Says that messages are spam, or that they are not (ham). SpamAssassin learns them by TELL (spamd must run with
--allow-tell), and "postern history" shows the label. Each FILE holds one message; without one it is read from standard
input. Of what is said of a message for the same user, the last word stands.

  --user USER      login name of the user who says it; without it the operator does, for the whole site
  --message-id ID  label what is recorded under this Message-ID. Nothing is learned, for want of the message

While spamd can't be reached, the message waits in the state folder, and "postern run" with [feedback] enabled
teaches it later.

Exit status: 0 labelled, and learned or waiting; 65 a message can't be used, 75 something could not be kept,
64 wrong use, 78 configuration not usable, 1 anything else.
`;

/** sysexits(3): EX_DATAERR, EX_TEMPFAIL. Pigeonhole takes all but 0 for a failure, and logs it. */
const EXIT_LEARN = { ...EXIT, data: 65, tempfail: 75 } as const;

interface LearnArguments {
  readonly label: LabelKind;
  readonly user: string;
  readonly messageId: string | null;
  readonly files: readonly string[];
  readonly config: string | null;
}

/** `postern learn` */
export async function learn(args: readonly string[]): Promise<number> {
  if (args.includes('--help') || args.includes('-h')) {
    process.stdout.write(HELP);
    return EXIT.ok;
  }
  const wanted = parseLearn(args);
  const loaded = await readConfig(wanted.config);
  if (loaded === null) return EXIT.config;
  const { config } = loaded;
  const log = {
    error: (_fields: unknown, message?: string): void =>
      void process.stderr.write(`postern: ${message ?? ''}\n`),
  };
  await using store = await openLabels(config);
  const { label, user, messageId, files } = wanted;
  if (messageId !== null) {
    try {
      await store.label({ message: messageIdKey(messageId), user, label, time: clock.now() });
      return EXIT.ok;
    } catch (error) {
      process.stderr.write(`postern: not labelled: ${causes(error)}\n`);
      return EXIT_LEARN.tempfail;
    }
  }
  const lessons = await openLessons(() => config, log);
  const tools = { config, store, lessons, pupil: openPupil(config, clock) };
  let status: number = EXIT_LEARN.ok;
  for (const file of files.length === 0 ? [null] : files) {
    const end = await learnOne(file, wanted, tools);
    if (end !== EXIT_LEARN.ok) status = end;
  }
  return status;
}

interface LearnTools {
  readonly config: Config;
  readonly store: Pick<Store, 'label'>;
  readonly lessons: LessonFolder;
  readonly pupil: SpamTeacher | null;
}

/** @param file null: standard input */
async function learnOne(
  file: string | null,
  { label, user }: LearnArguments,
  { config, store, lessons, pupil }: LearnTools,
): Promise<number> {
  const name = file === null ? 'standard input' : printable(file, 200);
  const say = (text: string): void => void process.stderr.write(`postern: ${name}: ${text}\n`);
  const { max_size: maxSize } = config.file.feedback;
  let read;
  try {
    read = await readBounded(file, maxSize);
  } catch (error) {
    say(error instanceof Error ? error.message : 'cannot be read');
    return EXIT_LEARN.data;
  }
  const { key, content } = readMail(read.octets, config.authservId);
  if (read.octets.length === 0 || key === null) {
    say('no message, or one without a Message-ID');
    return EXIT_LEARN.data;
  }
  const lesson: Lesson = { message: key, user, label, time: clock.now(), content };
  try {
    await store.label({ message: key, user, label, time: lesson.time });
  } catch (error) {
    say(`not labelled, and not learned: ${causes(error)}`);
    return EXIT_LEARN.tempfail;
  }
  if (pupil === null) {
    say('labelled; not learned: no spamd is configured');
    return EXIT_LEARN.ok;
  }
  if (!read.complete) {
    say(`labelled; not learned: it is larger than feedback.max_size, ${maxSize} octets`);
    return EXIT_LEARN.ok;
  }
  try {
    await pupil.teach(
      lesson,
      AbortSignal.timeout(config.file.spamd.timeout * config.file.spamd.address.length),
    );
    // What waited was said before.
    await lessons.drop(lesson);
    return EXIT_LEARN.ok;
  } catch (error) {
    if (!(error instanceof NeighbourError)) throw error;
    return await wait(lesson, lessons, causes(error), say);
  }
}

async function wait(
  lesson: Lesson,
  lessons: LessonFolder,
  why: string,
  say: (text: string) => void,
): Promise<number> {
  try {
    await lessons.add(lesson);
  } catch (error) {
    if (!(error instanceof LessonsFull)) throw error;
    say(`labelled; not learned: ${why}; and ${error.message}`);
    return EXIT_LEARN.tempfail;
  }
  say(`labelled; waits to be learned: ${why}`);
  return EXIT_LEARN.ok;
}

/** No more than `limit` octets. */
async function readBounded(
  file: string | null,
  limit: number,
): Promise<{ readonly octets: Buffer; readonly complete: boolean }> {
  const chunks: Buffer[] = [];
  let size = 0;
  const take = (chunk: Buffer): boolean => {
    const room = limit - size;
    chunks.push(chunk.subarray(0, room));
    size += Math.min(chunk.length, room);
    return chunk.length <= room;
  };
  let complete = true;
  if (file === null) {
    // Read to the end: whoever writes it must not meet a closed pipe.
    for await (const chunk of process.stdin) {
      if (!(chunk instanceof Buffer)) throw new TypeError('standard input gives no octets');
      if (!take(chunk)) complete = false;
    }
    return { octets: Buffer.concat(chunks), complete };
  }
  await using handle = await open(file, 'r');
  for await (const chunk of handle.createReadStream({ autoClose: false })) {
    if (!(chunk instanceof Buffer)) throw new TypeError('the file gives no octets');
    if (take(chunk)) continue;
    complete = false;
    break;
  }
  return { octets: Buffer.concat(chunks), complete };
}

/** @throws {UsageError} */
export function parseLearn(args: readonly string[]): LearnArguments {
  const parsed = readArguments('learn', args, {
    user: { type: 'string' },
    'message-id': { type: 'string' },
    config: { type: 'string' },
  });
  const { values, positionals } = parsed;
  const [word = '', ...files] = positionals;
  const label = LABEL_KINDS.find((kind) => kind === word);
  if (label === undefined) throw usage('learn what: spam or ham?');
  const { user = '', 'message-id': messageId = null } = values;
  if (user !== '' && !isUserName(user)) throw usage('--user: expected a login name');
  if (messageId !== null && files.length > 0) throw usage('either --message-id or files');
  if (messageId === '') throw usage('--message-id: expected a Message-ID, with its angle brackets');
  return { label, user, messageId, files, config: values.config ?? null };
}

function usage(message: string): UsageError {
  return new UsageError(message, 'learn');
}
