import { createHash, createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import { link, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';

import { HeaderList, unfold } from '../mail/header.ts';
import type { Body } from '../mail/message.ts';
import { RELEASE_FIELD, type ArrivedMail } from '../ports/quarantine.ts';
import { hasCode, isAbsent, syncFolder, writeDurably } from './quarantine-entry.ts';

/**
 * Tells a released message from one that says it is. The field above it holds a keyed digest of the sender and of every octet below; the key is a
 * file that only we can read. A copy of such a message, seen by whoever received it, is good for nothing but the same message once more,
 * and not for long.
 */
const KEY_FILE = '.key';
const KEY_OCTETS = 32;
/** Of what a released message may take through Postfix's queue. Later it is judged again, as any other. */
const VALID_SECONDS = 86_400;
const FIELD = /^id=([0-9a-f]{32}); t=(\d{1,12}); s=([0-9a-f]{64})$/;
/** Received fields that Postfix may have put on top, with a content filter or two behind the listener. */
const HOPS = 5;

/** null: there is none yet. @throws when it can't be read or is no key */
export async function readSealKey(folder: string): Promise<Buffer | null> {
  try {
    const text = (await readFile(join(folder, KEY_FILE), 'latin1')).trim();
    if (!/^[0-9a-f]{64}$/.test(text)) throw new Error(`${join(folder, KEY_FILE)} holds no key`);
    return Buffer.from(text, 'hex');
  } catch (error) {
    if (isAbsent(error)) return null;
    throw error;
  }
}

/** Several processes may begin at once: the first one's key is everybody's. */
export async function makeSealKey(folder: string): Promise<Buffer> {
  const known = await readSealKey(folder);
  if (known !== null) return known;
  const fresh = join(folder, `.key-${randomBytes(8).toString('hex')}`);
  await writeDurably(fresh, [Buffer.from(`${randomBytes(KEY_OCTETS).toString('hex')}\n`)]);
  try {
    await link(fresh, join(folder, KEY_FILE));
  } catch (error) {
    if (!hasCode(error, 'EEXIST')) throw error;
  } finally {
    await rm(fresh, { force: true });
  }
  await syncFolder(folder);
  const key = await readSealKey(folder);
  if (key === null) throw new Error(`${join(folder, KEY_FILE)} is gone`);
  return key;
}

export interface Sealed {
  readonly id: string;
  readonly sender: string;
  /** SHA-256 of header section, empty line and body. */
  readonly content: string;
}

/** The field, with its line end. */
export function sealField(key: Buffer, sealed: Sealed, nowMs: number): string {
  const until = Math.floor(nowMs / 1000) + VALID_SECONDS;
  return `${RELEASE_FIELD}: id=${sealed.id}; t=${until}; s=${digestOf(key, sealed, until)}\r\n`;
}

/** The id under which this very message was released; null when it was not, not lately, or is another one. */
export async function openSeal(key: Buffer, mail: ArrivedMail, nowMs: number): Promise<string | null> {
  const fields = mail.headers.toArray();
  const at = fields.findIndex(({ name }) => name.toLowerCase() !== 'received');
  const seal = fields[at];
  if (seal === undefined || at > HOPS || seal.name.toLowerCase() !== RELEASE_FIELD.toLowerCase()) return null;
  const [, id, seconds, shown] = FIELD.exec(unfold(seal.value)) ?? [];
  if (id === undefined || seconds === undefined || shown === undefined) return null;
  const until = Number(seconds);
  if (nowMs / 1000 > until) return null;
  const below = new HeaderList(fields.slice(at + 1));
  const content = await contentDigest(below, mail.body);
  const expected = Buffer.from(digestOf(key, { id, sender: mail.sender, content }, until));
  return timingSafeEqual(expected, Buffer.from(shown)) ? id : null;
}

/** SHA-256 of the whole message. */
export async function contentDigest(headers: HeaderList, body: Body, salt = ''): Promise<string> {
  const hash = createHash('sha256').update(salt, 'latin1');
  hash.update(`${headers.serialize()}\r\n`, 'latin1');
  for await (const chunk of body.chunks()) hash.update(chunk);
  return hash.digest('hex');
}

/** The same, of a message in one piece. */
export async function octetsDigest(content: AsyncIterable<Uint8Array>): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of content) hash.update(chunk);
  return hash.digest('hex');
}

function digestOf(key: Buffer, { id, sender, content }: Sealed, until: number): string {
  // Each part but the sender is of a fixed alphabet without line ends, and the sender stands last.
  const text = `postern-release-1\n${id}\n${until}\n${content}\n${sender}`;
  return createHmac('sha256', key).update(text, 'latin1').digest('hex');
}
