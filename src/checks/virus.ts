import { z } from 'zod';

import { lowerAscii } from '../mail/address.ts';
import type { VirusAnswer } from '../ports/virus-scanner.ts';
import type { Finding } from '../verdict/finding.ts';
import { bodyCheck, UnmetNeed, type BodyReader, type CodeInfo, type ReadContext } from './check.ts';
import { byteSize } from './options.ts';
import { matchesWildcard, parseWildcard } from './wildcard.ts';

const NAME_FORM =
  'expected a name of 1 to 40 lower-case letters, digits and hyphens, such as "pua", and none of those that the check itself has';
const PATTERN_FORM =
  'expected the name of a signature of 1 to 200 printable ASCII characters, with * for any run of them';

/** Words behind `virus.` that are not the operator's to choose. */
const OWN_WORDS: ReadonlySet<string> = new Set(['found', 'too-large', 'error', 'timeout']);

/** StreamMaxLength of a clamd as Debian sets it up. */
const USUAL_SIZE = '25MiB';
const LARGEST = 2 ** 31;

/** Kept for ourselves of the time we have: clamd's lateness is then a fact of its own, with a rule of its own. */
const PATIENCE = 0.9;

const signature = z.strictObject({
  name: z
    .string(NAME_FORM)
    .regex(/^[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?$/, NAME_FORM)
    .refine((name) => !OWN_WORDS.has(name), NAME_FORM)
    .describe('Its name: the finding is virus.NAME, for [rules] and the record.')
    .meta({ examples: ['pua'], title: 'name' }),
  pattern: z
    .string(PATTERN_FORM)
    .regex(/^[\x20-\x7e]{1,200}$/, PATTERN_FORM)
    .transform((text) => parseWildcard(lowerAscii(text)))
    .describe(
      'Which signatures: their name, with * for any run of characters; upper and lower case are the same.',
    )
    .meta({ examples: ['PUA.*'], title: 'pattern' }),
  action: z
    .enum(['ignore', 'tag', 'junk', 'quarantine', 'defer', 'reject', 'discard'])
    .default('quarantine')
    .describe('What is done, unless [rules] says otherwise.'),
});

const OPTIONS = {
  max_size: byteSize()
    .refine((octets) => octets >= 1024 && octets <= LARGEST, 'expected a size from "1KiB" to "2GiB"')
    .prefault(USUAL_SIZE)
    .meta({ title: 'size' })
    .describe(
      "Of larger messages so much is scanned. No more than clamd's StreamMaxLength, which is 25M on Debian; otherwise clamd does not look at them at all.",
    ),
  signatures: z
    .array(signature)
    .max(200)
    .refine(
      (list) => new Set(list.map(({ name }) => name)).size === list.length,
      'expected names of which none is there twice',
    )
    .prefault([
      { name: 'heuristics', pattern: 'Heuristics.*', action: 'junk' },
      { name: 'pua', pattern: 'PUA.*', action: 'junk' },
    ])
    .describe(
      'Signatures that mean something else than a virus: the first that fits counts. What none fits is virus.found. Without any of your own, Heuristics.* (suspicions) and PUA.* (unwanted programs) are filed as junk, because wanted mail is among them.',
    ),
};

type VirusOptions = z.output<z.ZodObject<typeof OPTIONS>>;

/** What ClamAV finds in a message, which it reads while the message comes. */
export const virusCheck = bodyCheck({
  name: 'virus',
  stage: 'message',
  summary: 'Viruses that ClamAV finds, in incoming and outgoing mail.',
  directions: ['in', 'out'],
  needs: [],
  codes: {
    'virus.found': { meaning: 'ClamAV knows the message as a virus or another danger.', action: 'reject' },
    'virus.too-large': {
      meaning:
        'The message is larger than max_size, or than clamd takes; nothing was found in what was scanned of it.',
      action: 'ignore',
    },
    'virus.error': { meaning: 'clamd says that it could not look at this message.', action: 'defer' },
    'virus.timeout': { meaning: 'clamd was not done with this message in time.', action: 'defer' },
  },
  codesOf: signatureCodes,
  unavailable: 'defer',
  deadline: '60s',
  options: OPTIONS,
  ready: (tools) => tools.virusScanner !== null,
  read: (context) => new Scanning(context),
});

function signatureCodes({ signatures }: VirusOptions): Readonly<Record<string, CodeInfo>> {
  return Object.fromEntries(
    signatures.map(({ name, pattern, action }) => [
      `virus.${name}`,
      { meaning: `ClamAV found a signature like ${pattern.pieces.join('*')}.`, action },
    ]),
  );
}

/** The header section as it came, then the body. */
class Scanning implements BodyReader {
  readonly #options: VirusOptions;
  readonly #scan;
  #room: number;
  #size = 0;

  constructor({ facts, tools, options, signal, deadlineMs }: ReadContext<VirusOptions>) {
    if (tools.virusScanner === null) throw new UnmetNeed('no virus scanner is configured');
    this.#options = options;
    this.#room = options.max_size;
    this.#scan = tools.virusScanner.begin(deadlineMs * PATIENCE, signal);
    // Not waited for: the first piece of the body is.
    void this.write(Buffer.from(`${facts.headers.serialize()}\r\n`, 'latin1'));
  }

  write(chunk: Uint8Array): Promise<void> | undefined {
    this.#size += chunk.length;
    const part = chunk.length > this.#room ? chunk.subarray(0, this.#room) : chunk;
    this.#room -= part.length;
    return part.length === 0 ? undefined : this.#scan.write(part);
  }

  async end(): Promise<readonly Finding[]> {
    return findingsOf(await this.#scan.end(), this.#size, this.#options);
  }
}

function findingsOf(answer: VirusAnswer, size: number, options: VirusOptions): readonly Finding[] {
  switch (answer.kind) {
    case 'found': {
      const name = lowerAscii(answer.signature);
      const known = options.signatures.find(({ pattern }) => matchesWildcard(pattern, name));
      return [{ code: `virus.${known?.name ?? 'found'}`, detail: `ClamAV found ${answer.signature}` }];
    }
    case 'clean': {
      const { max_size: limit } = options;
      if (size <= limit) return [];
      const detail = `nothing found in the first ${limit} octets (max_size) of ${size}`;
      return [{ code: 'virus.too-large', detail }];
    }
    case 'too-large':
      return [
        {
          code: 'virus.too-large',
          detail: 'clamd takes no message of this size: its StreamMaxLength is below max_size of the check',
        },
      ];
    case 'error':
      return [{ code: 'virus.error', detail: `clamd: ${answer.text}` }];
    case 'timeout':
      return [{ code: 'virus.timeout', detail: 'clamd was not done in time' }];
  }
}
