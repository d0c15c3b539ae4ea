import { spawn } from 'node:child_process';

import { z } from 'zod';

import { printable } from '../mail/reply.ts';
import { NeighbourError } from '../ports/neighbour-error.ts';

/** A message that Postfix holds. */
export interface HeldMail {
  readonly queueId: string;
  /** Milliseconds since 1970. */
  readonly time: number;
  readonly size: number;
  readonly sender: string;
  readonly recipients: readonly string[];
}

/** Where Postfix's commands are, behind what PATH says; Debian's users do not have it there. */
const SBIN = '/usr/local/sbin:/usr/sbin:/sbin';
const DEADLINE_MS = 60_000;
const OUTPUT_LIMIT = 256 * 1024 * 1024;
const ERROR_LIMIT = 65_536;
const SAID_LIMIT = 300;
/** Short and long queue ids (enable_long_queue_ids). */
const QUEUE_ID = /^[0-9A-Za-z]{5,25}$/;

// postqueue(1), JSON object format.
const LINE = z.object({
  queue_name: z.string(),
  queue_id: z.string(),
  arrival_time: z.number(),
  message_size: z.number(),
  sender: z.string(),
  recipients: z.array(z.object({ address: z.string() })),
});

export function isQueueId(text: string): boolean {
  return QUEUE_ID.test(text);
}

/** Oldest first. @throws {NeighbourError} */
export async function heldMail(): Promise<readonly HeldMail[]> {
  const listed = await run('postqueue', ['-j']);
  const held: HeldMail[] = [];
  for (const line of listed.toString('utf8').split('\n')) {
    if (line === '') continue;
    const mail = lineOf(line);
    if (mail.queue_name !== 'hold' || !isQueueId(mail.queue_id)) continue;
    held.push({
      queueId: mail.queue_id,
      time: mail.arrival_time * 1000,
      size: mail.message_size,
      sender: mail.sender === 'MAILER-DAEMON' ? '' : mail.sender,
      recipients: mail.recipients.map(({ address }) => address),
    });
  }
  // Times are whole seconds; long queue ids begin with the microseconds, in characters that sort as they count.
  return held.toSorted((a, b) => a.time - b.time || (a.queueId < b.queueId ? -1 : 1));
}

/** The message of a queue file. Needs root. @throws {NeighbourError} */
export async function heldContent(queueId: string): Promise<Buffer> {
  return run('postcat', ['-bhq', named(queueId)]);
}

/** Lets it go on. Needs root. @throws {NeighbourError} */
export async function releaseHeld(queueId: string): Promise<void> {
  await run('postsuper', ['-H', named(queueId)]);
}

/** Only what is on hold: what has been let go meanwhile is no longer ours to delete. @throws {NeighbourError} */
export async function deleteHeld(queueId: string): Promise<void> {
  await run('postsuper', ['-d', named(queueId), 'hold']);
}

function named(queueId: string): string {
  if (!isQueueId(queueId)) throw new Error(`"${printable(queueId, 40)}" is no queue id`);
  return queueId;
}

function lineOf(line: string): z.output<typeof LINE> {
  try {
    return LINE.parse(JSON.parse(line));
  } catch (error) {
    throw new NeighbourError('postqueue printed a line that is not understood', { cause: error });
  }
}

/** What it prints. @throws {NeighbourError} */
function run(program: string, args: readonly string[]): Promise<Buffer> {
  const { PATH: path = '', ...env } = process.env;
  const child = spawn(program, args, {
    env: { ...env, PATH: `${path}:${SBIN}`, LC_ALL: 'C' },
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: DEADLINE_MS,
    killSignal: 'SIGKILL',
  });
  return new Promise((resolve, reject) => {
    const printed: Buffer[] = [];
    let size = 0;
    let said = '';
    child.stdout.on('data', (chunk: Buffer) => {
      size += chunk.length;
      if (size > OUTPUT_LIMIT) child.kill('SIGKILL');
      else printed.push(chunk);
    });
    child.stderr.on('data', (chunk: Buffer) => {
      if (said.length < ERROR_LIMIT) said += chunk.toString('utf8');
    });
    child.once('error', (error) => {
      reject(new NeighbourError(`Postfix's ${program} can't be run`, { cause: error }));
    });
    child.once('close', (code) => {
      if (code === 0 && size <= OUTPUT_LIMIT) resolve(Buffer.concat(printed));
      else if (size > OUTPUT_LIMIT)
        reject(new NeighbourError(`${program} printed more than ${OUTPUT_LIMIT} octets`));
      else reject(new NeighbourError(`${program}: ${printable(said.trim(), SAID_LIMIT) || 'it failed'}`));
    });
  });
}
