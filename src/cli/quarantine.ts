import {
  deleteHeld,
  heldContent,
  heldMail,
  isQueueId,
  releaseHeld,
  type HeldMail,
} from '../adapters/postfix-queue.ts';
import type { QuarantineEntry, QuarantineFolder } from '../adapters/quarantine-folder.ts';
import { releaseBySmtp } from '../adapters/release-smtp.ts';
import type { Config } from '../config/config.ts';
import { printable } from '../mail/reply.ts';
import { NeighbourError } from '../ports/neighbour-error.ts';
import { EXIT, readArguments, UsageError } from './arguments.ts';
import { causes } from './causes.ts';
import { readConfig } from './config-file.ts';
import { openQuarantine } from './open-quarantine.ts';
import {
  describeEntry,
  describeHeld,
  jsonOf,
  listLine,
  shownMessage,
  type Listed,
} from './quarantine-words.ts';

const HELP = `Usage: postern quarantine list [--json] [--config FILE]
       postern quarantine show ID [--raw] [--config FILE]
       postern quarantine release ID... [--config FILE]
       postern quarantine delete ID... [--config FILE]

Mail that was quarantined: in the folder (where = "folder") and on hold in Postfix. An ID is a queue id of Postfix, or the
name of a message in the folder, of which a part that is unique is enough.

list     What there is, oldest first: ID, time, size, why, sender, recipients.
show     One message: envelope, why it is here, header section, and the beginning of its body as text.
release  Sends it on to its recipients. It is not judged again, and changed in nothing.
delete   Removes it.

  --json   one JSON object on each line
  --raw    the message and nothing else, octet by octet: for a program, not for a terminal

Exit status: 0; 1 when something could not be done, 64 wrong use, 78 configuration not usable.
`;

/** A part of a name that may stand for all of it. */
const SHORTEST_PREFIX = 4;
const RELEASE_PATIENCE_MS = 60_000;
/** Octets of a message that are looked at to show it. */
const SHOWN_OCTETS = 256 * 1024;

const COMMANDS = ['list', 'show', 'release', 'delete'] as const;

interface QuarantineArguments {
  readonly command: (typeof COMMANDS)[number];
  readonly ids: readonly string[];
  readonly json: boolean;
  readonly raw: boolean;
  readonly config: string | null;
}

/** `postern quarantine` */
export async function quarantine(args: readonly string[]): Promise<number> {
  if (args.includes('--help') || args.includes('-h')) {
    process.stdout.write(HELP);
    return EXIT.ok;
  }
  const wanted = parseQuarantine(args);
  const loaded = await readConfig(wanted.config);
  if (loaded === null) return EXIT.config;
  const { config } = loaded;
  const folder = openQuarantine(config);
  if (wanted.command === 'list') return await list(folder, config, wanted.json);
  let status: number = EXIT.ok;
  for (const id of wanted.ids) {
    try {
      const found = await find(id, folder);
      switch (wanted.command) {
        case 'show':
          await show(found, folder, wanted.raw);
          break;
        case 'release':
          await release(found, folder, config);
          break;
        case 'delete':
          await remove(found, folder);
          break;
      }
    } catch (error) {
      process.stderr.write(`postern: ${printable(id, 40)}: ${causes(error)}\n`);
      status = EXIT.failed;
    }
  }
  return status;
}

/** @throws {UsageError} */
export function parseQuarantine(args: readonly string[]): QuarantineArguments {
  const parsed = readArguments('quarantine', args, {
    json: { type: 'boolean' },
    raw: { type: 'boolean' },
    config: { type: 'string' },
  });
  const [word, ...ids] = parsed.positionals;
  const command = COMMANDS.find((known) => known === word);
  if (command === undefined) throw usage(`which? There are ${COMMANDS.join(', ')}`);
  const { json = false, raw = false, config = null } = parsed.values;
  if (command === 'list' && ids.length > 0) throw usage(`"${ids[0] ?? ''}" is not expected here`);
  if (command !== 'list' && ids.length === 0) throw usage(`${command} what? An ID that "list" shows`);
  if (command === 'show' && ids.length > 1) throw usage('one ID at a time');
  if (json && command !== 'list') throw usage('--json is for list');
  if (raw && command !== 'show') throw usage('--raw is for show');
  return { command, ids, json, raw, config };
}

/** What an ID means. */
type Found =
  { readonly kind: 'folder'; readonly id: string } | { readonly kind: 'hold'; readonly mail: HeldMail };

async function find(text: string, folder: QuarantineFolder): Promise<Found> {
  const ids = text.length >= SHORTEST_PREFIX && /^[0-9a-f]+$/.test(text) ? await folder.find(text) : [];
  const [id] = ids;
  if (ids.length > 1) throw new Error(`${ids.length} messages have names that begin so`);
  if (id !== undefined) return { kind: 'folder', id };
  const mail = isQueueId(text) ? (await heldMail()).find(({ queueId }) => queueId === text) : undefined;
  if (mail === undefined) throw new Error('there is no such message in quarantine');
  return { kind: 'hold', mail };
}

async function list(folder: QuarantineFolder, { file }: Config, json: boolean): Promise<number> {
  const listed: Listed[] = (await folder.list()).map((entry) => ({ kind: 'folder', entry }));
  let status: number = EXIT.ok;
  try {
    for (const mail of await heldMail()) listed.push({ kind: 'hold', mail });
  } catch (error) {
    if (!(error instanceof NeighbourError)) throw error;
    // Where the folder is used, a machine without Postfix's commands (a container) has nothing on hold that could be listed.
    process.stderr.write(`postern: what Postfix holds is not known: ${causes(error)}\n`);
    if (file.quarantine.where === 'postfix') status = EXIT.failed;
  }
  if (listed.length === 0 && status === EXIT.ok) process.stderr.write('postern: nothing is in quarantine\n');
  for (const one of listed) {
    process.stdout.write(`${json ? JSON.stringify(jsonOf(one)) : listLine(one)}\n`);
  }
  return status;
}

async function show(found: Found, folder: QuarantineFolder, raw: boolean): Promise<void> {
  const content = found.kind === 'hold' ? [await heldContent(found.mail.queueId)] : folder.content(found.id);
  if (raw) {
    for await (const chunk of content) await written(chunk);
    return;
  }
  const head =
    found.kind === 'hold' ? describeHeld(found.mail) : describeEntry(await entryOf(found.id, folder));
  const octets: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of content) {
    octets.push(chunk);
    size += chunk.length;
    if (size >= SHOWN_OCTETS) break;
  }
  const text = Buffer.concat(octets).toString('latin1', 0, SHOWN_OCTETS);
  process.stdout.write(`${[...head, '', ...shownMessage(text)].join('\n')}\n`);
}

async function entryOf(id: string, folder: QuarantineFolder): Promise<QuarantineEntry> {
  const envelope = await folder.envelope(id);
  if (envelope === null) throw new Error('it is gone');
  return { id, envelope, problem: null };
}

async function release(found: Found, folder: QuarantineFolder, { file }: Config): Promise<void> {
  if (found.kind === 'hold') {
    await releaseHeld(found.mail.queueId);
    process.stdout.write(`released ${found.mail.queueId}\n`);
    return;
  }
  const { id } = found;
  await using claimed = await folder.claim(id);
  if (claimed === null) throw new Error('it is being released already');
  const { envelope } = await entryOf(id, folder);
  if (envelope === null) throw new Error('it is gone');
  const to = file.quarantine.release_to;
  const { sender, recipients } = envelope;
  const field = await folder.seal(id, sender);
  const content = (): AsyncIterable<Uint8Array> => folder.content(id);
  const report = await releaseBySmtp(
    { sender, recipients, field, content },
    { host: to.host, port: to.port, hostname: file.site.hostname, patienceMs: RELEASE_PATIENCE_MS },
  );
  await folder.settle(id, new Set(report.accepted));
  process.stdout.write(`released ${id} to ${report.accepted.length} of ${recipients.length} recipients\n`);
  const [first] = report.refused;
  if (first !== undefined) {
    const [recipient, why] = first;
    throw new Error(
      `stays for ${report.refused.size} recipients: ${printable(recipient, 320)}: ${printable(why, 320)}`,
    );
  }
}

async function remove(found: Found, folder: QuarantineFolder): Promise<void> {
  if (found.kind === 'hold') {
    await deleteHeld(found.mail.queueId);
    process.stdout.write(`deleted ${found.mail.queueId}\n`);
    return;
  }
  if (!(await folder.remove(found.id))) throw new Error('it is gone');
  process.stdout.write(`deleted ${found.id}\n`);
}

function written(chunk: Uint8Array): Promise<void> {
  return new Promise((resolve, reject) => {
    process.stdout.write(chunk, (error) => (error ? reject(error) : resolve()));
  });
}

function usage(message: string): UsageError {
  return new UsageError(message, 'quarantine');
}
