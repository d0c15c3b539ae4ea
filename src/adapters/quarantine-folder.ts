import { createReadStream } from 'node:fs';
import { mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises';
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';

import { unfold, type HeaderList } from '../mail/header.ts';
import { printable } from '../mail/reply.ts';
import type { Body } from '../mail/message.ts';
import type { ArrivedMail, Quarantine, QuarantinedMail } from '../ports/quarantine.ts';
import {
  ENVELOPE_FILE,
  envelopeText,
  hasCode,
  isAbsent,
  MESSAGE_FILE,
  readEnvelope,
  syncFolder,
  writeDurably,
  type QuarantineEnvelope,
} from './quarantine-entry.ts';
import { QuarantineRoom, type QuarantineEvents, type QuarantineLimits } from './quarantine-room.ts';
import {
  contentDigest,
  makeSealKey,
  octetsDigest,
  openSeal,
  readSealKey,
  sealField,
} from './quarantine-seal.ts';

/** One message in the list. */
export interface QuarantineEntry {
  readonly id: string;
  /** null: its envelope can't be read, and `problem` says why. */
  readonly envelope: QuarantineEnvelope | null;
  readonly problem: string | null;
}

const ID = /^[0-9a-f]{32}$/;
/** Folders of messages that are not complete, or on their way out. */
const PASSING = /^\.(?:new|gone)-/;
/** So old, they are what a process that was killed left behind. */
const LEFT_BEHIND_MS = 3_600_000;
/** Envelope text that is shown. */
const TEXT_LIMIT = 300;
const CLAIM_FILE = 'releasing';
/** A release takes minutes at most; what holds longer was killed. */
const CLAIM_MS = 900_000;

/**
 * One folder for each message, named by a digest of sender and content as they came, with the message as it is to leave and its envelope.
 * A message appears whole, by a rename, or not at all.
 */
export class QuarantineFolder implements Quarantine {
  readonly #folder: string;
  readonly #limits: () => QuarantineLimits;
  readonly #events: QuarantineEvents;
  readonly #now: () => number;
  /** Work on single messages that is under way. */
  readonly #busy = new Map<string, Promise<unknown>>();
  readonly #room: QuarantineRoom;

  constructor(folder: string, limits: () => QuarantineLimits, events: QuarantineEvents, now: () => number) {
    this.#folder = folder;
    this.#limits = limits;
    this.#events = events;
    this.#now = now;
    this.#room = new QuarantineRoom(
      {
        sizes: () => this.#sizes(),
        // Those whose envelope can't be read are for somebody to look at.
        oldestFirst: async () =>
          (await this.list()).flatMap(({ id, envelope }) =>
            envelope === null ? [] : [{ id, time: envelope.time, size: envelope.size }],
          ),
        remove: (id) => this.remove(id),
      },
      limits,
      events,
      now,
    );
  }

  /** Makes the folder and its key; the daemons do, so that both are theirs. @throws when it can't be used */
  async prepare(): Promise<void> {
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
    await makeSealKey(this.#folder);
  }

  async store(mail: QuarantinedMail): Promise<string> {
    await this.prepare();
    // RFC 5321 §6.1: who has no answer sends again, with another queue id and trace: only the message itself tells that it is the same.
    const digest = await contentDigest(mail.came, mail.body, `${mail.sender}\n`);
    const id = digest.slice(0, 32);
    await this.#alone(id, async () => {
      const known = await readEnvelope(this.#place(id));
      if (known === null) await this.#keep(id, mail);
      else await this.#addRecipients(id, known, mail.recipients);
    });
    return id;
  }

  async released(mail: ArrivedMail): Promise<string | null> {
    const key = await readSealKey(this.#folder);
    return key === null ? null : openSeal(key, mail, this.#now());
  }

  /** Oldest first. */
  async list(): Promise<readonly QuarantineEntry[]> {
    const entries: QuarantineEntry[] = [];
    for (const id of await this.#names()) {
      if (!ID.test(id)) continue;
      const entry = await this.#entry(id);
      if (entry !== null) entries.push(entry);
    }
    return entries.toSorted((a, b) => timeOf(a) - timeOf(b));
  }

  /** Ids that begin so. */
  async find(prefix: string): Promise<readonly string[]> {
    return (await this.#names()).filter((id) => ID.test(id) && id.startsWith(prefix));
  }

  /** null: it is not there. @throws when its envelope can't be read */
  async envelope(id: string): Promise<QuarantineEnvelope | null> {
    return readEnvelope(this.#place(id));
  }

  /** The message, octet by octet. */
  content(id: string): AsyncIterable<Uint8Array> {
    return createReadStream(join(this.#place(id), MESSAGE_FILE));
  }

  /** The field that is to stand above the message when it is released. @throws when the daemons have not made their key */
  async seal(id: string, sender: string): Promise<string> {
    const key = await readSealKey(this.#folder);
    if (key === null) throw new Error(`${this.#folder} has no key: it is not a quarantine`);
    const content = await octetsDigest(this.content(id));
    return sealField(key, { id, sender, content }, this.#now());
  }

  /** Removes it; false: it is not there. */
  async remove(id: string): Promise<boolean> {
    const gone = join(this.#folder, `.gone-${id}-${randomBytes(8).toString('hex')}`);
    try {
      await rename(this.#place(id), gone);
    } catch (error) {
      if (isAbsent(error)) return false;
      throw error;
    }
    await syncFolder(this.#folder);
    await rm(gone, { recursive: true, force: true });
    return true;
  }

  /** The recipients have it now: they are taken off, and with the last one the message goes. */
  async settle(id: string, recipients: ReadonlySet<string>): Promise<void> {
    const known = await readEnvelope(this.#place(id));
    if (known === null) return;
    const left = known.recipients.filter((recipient) => !recipients.has(recipient));
    if (left.length === 0) await this.remove(id);
    else await this.#rewrite(id, { ...known, recipients: left });
  }

  /** For a release: nobody else releases it meanwhile. null: somebody does. */
  async claim(id: string): Promise<AsyncDisposable | null> {
    const path = join(this.#place(id), CLAIM_FILE);
    for (let attempt = 0; attempt < 2; attempt++) {
      try {
        await (await open(path, 'wx', 0o600)).close();
        return { [Symbol.asyncDispose]: () => rm(path, { force: true }) };
      } catch (error) {
        if (!hasCode(error, 'EEXIST')) throw error;
        const { mtimeMs } = await stat(path);
        if (this.#now() - mtimeMs < CLAIM_MS) return null;
        await rm(path, { force: true });
      }
    }
    return null;
  }

  /** Removes what is too old, and what has to go for the others' room. */
  async expire(): Promise<void> {
    await this.#sweep();
    const { maxAgeMs } = this.#limits();
    for (const { id, envelope } of await this.list()) {
      if (envelope === null || this.#now() - envelope.time <= maxAgeMs) continue;
      if (await this.remove(id)) this.#events.removed(id, 'age');
    }
    await this.#room.tidy();
  }

  async #keep(id: string, mail: QuarantinedMail): Promise<void> {
    const head = Buffer.from(`${mail.leaves.serialize()}\r\n`, 'latin1');
    await this.#room.make(head.length + mail.body.size);
    const fresh = join(this.#folder, `.new-${randomBytes(8).toString('hex')}`);
    await mkdir(fresh, { mode: 0o700 });
    try {
      const size = await writeDurably(join(fresh, MESSAGE_FILE), joined(head, mail.body));
      await writeDurably(join(fresh, ENVELOPE_FILE), [Buffer.from(envelopeText(envelopeOf(mail, size)))]);
      await syncFolder(fresh);
      await rename(fresh, this.#place(id));
      await syncFolder(this.#folder);
      this.#room.taken(size);
    } catch (error) {
      await rm(fresh, { recursive: true, force: true });
      throw error;
    }
  }

  async #addRecipients(id: string, known: QuarantineEnvelope, recipients: readonly string[]): Promise<void> {
    const all = [...new Set([...known.recipients, ...recipients])];
    if (all.length > known.recipients.length) await this.#rewrite(id, { ...known, recipients: all });
  }

  async #rewrite(id: string, envelope: QuarantineEnvelope): Promise<void> {
    const fresh = join(this.#place(id), `.${ENVELOPE_FILE}-${randomBytes(8).toString('hex')}`);
    await writeDurably(fresh, [Buffer.from(envelopeText(envelope))]);
    await rename(fresh, join(this.#place(id), ENVELOPE_FILE));
    await syncFolder(this.#place(id));
  }

  /** Octets of each message. */
  async #sizes(): Promise<readonly number[]> {
    const sizes: number[] = [];
    for (const id of await this.#names()) {
      if (!ID.test(id)) continue;
      try {
        sizes.push((await stat(join(this.#place(id), MESSAGE_FILE))).size);
      } catch (error) {
        if (!isAbsent(error)) throw error;
      }
    }
    return sizes;
  }

  /** What killed processes left. */
  async #sweep(): Promise<void> {
    for (const name of await this.#names()) {
      if (!PASSING.test(name)) continue;
      const path = join(this.#folder, name);
      try {
        const { mtimeMs } = await stat(path);
        if (this.#now() - mtimeMs > LEFT_BEHIND_MS) await rm(path, { recursive: true, force: true });
      } catch (error) {
        // It was finished meanwhile, and has its name now.
        if (!isAbsent(error)) throw error;
      }
    }
  }

  async #entry(id: string): Promise<QuarantineEntry | null> {
    try {
      const envelope = await readEnvelope(this.#place(id));
      return envelope === null ? null : { id, envelope, problem: null };
    } catch (error) {
      return { id, envelope: null, problem: error instanceof Error ? error.message : 'unreadable' };
    }
  }

  async #names(): Promise<readonly string[]> {
    try {
      return await readdir(this.#folder);
    } catch (error) {
      if (isAbsent(error)) return [];
      throw error;
    }
  }

  #place(id: string): string {
    if (!ID.test(id)) throw new Error(`"${printable(id, 40)}" is no name of a quarantined message`);
    return join(this.#folder, id);
  }

  /** One after the other for each message. */
  async #alone(id: string, work: () => Promise<void>): Promise<void> {
    const before = this.#busy.get(id) ?? Promise.resolve();
    const mine = before.then(work, work);
    this.#busy.set(id, mine);
    try {
      await mine;
    } finally {
      if (this.#busy.get(id) === mine) this.#busy.delete(id);
    }
  }
}

function timeOf({ envelope }: QuarantineEntry): number {
  return envelope?.time ?? 0;
}

async function* joined(head: Uint8Array, body: Body): AsyncGenerator<Uint8Array> {
  yield head;
  yield* body.chunks();
}

function envelopeOf(mail: QuarantinedMail, size: number): QuarantineEnvelope {
  const { daemon, trace, queueId, time, direction, client, helo, login, sender, rule, score } = mail;
  const recipients = [...new Set(mail.recipients)];
  return {
    version: 1,
    daemon,
    trace,
    queueId,
    time,
    direction,
    client,
    helo,
    login,
    sender,
    recipients,
    rule,
    why: mail.why.slice(0, TEXT_LIMIT),
    score,
    from: shown(mail.came, 'From'),
    subject: shown(mail.came, 'Subject'),
    size,
  };
}

function shown(headers: HeaderList, name: string): string {
  const field = headers.first(name);
  return field === undefined ? '' : unfold(field.value).slice(0, TEXT_LIMIT);
}
