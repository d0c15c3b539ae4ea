import { RE2JS, RE2JSException } from 're2js';
import { z } from 'zod';

import { normalText } from '../mail/normal-text.ts';
import { ATTACHMENT_TYPES, ENCRYPTED_KINDS, TEXT_PLACES } from '../ports/content-scanner.ts';
import { selection } from './address-pattern.ts';
import { nameList } from './names.ts';
import { byteSize } from './options.ts';

/** Of one rule. Words come from files as well. */
const WORD_LIMIT = 100_000;
const WORD_LENGTH = 200;
const RULE_LIMIT = 200;
const PATTERN_LIMIT = 100;
const PATTERN_LENGTH = 1000;
/** Instructions of a compiled pattern: `(a{1,1000}){1,1000}` would be a million. */
const PROGRAM_LIMIT = 20_000;
const COPY_LIMIT = 20;
const LARGEST = 64 * 1024 ** 2;

const NAME_FORM =
  'expected a name of 1 to 40 lower-case letters, digits and hyphens, such as "secrets", and none of those that the check itself has';
const WORD_FORM = `expected a word or phrase of 1 to ${WORD_LENGTH} characters, of which something is to be seen; "*" only at its ends`;
const PATTERN_FORM = `expected a regular expression of RE2's syntax, of 1 to ${PATTERN_LENGTH} characters, that does not match nothing`;
const EXTENSION_FORM = 'expected an extension such as "exe", without a dot before it';
const ADDRESS_FORM = 'expected an address such as "audit@example.org"';
const DOMAIN_FORM = 'a domain such as "example.org", "*.example.org" for all below it';
const NOTHING_FORM =
  'expected something to look for: words, patterns, extensions, types, encrypted, double_extension or mismatch';

/** Words behind `content.` that are not the operator's to choose. */
const OWN_WORDS: ReadonlySet<string> = new Set(['unparsable', 'too-large']);

function isWord(text: string): boolean {
  const bare = text.replace(/^\*/, '').replace(/\*$/, '');
  return bare.length <= WORD_LENGTH && !bare.includes('*') && normalText(bare).trim() !== '';
}

function isPattern(text: string): boolean {
  if (text.length === 0 || text.length > PATTERN_LENGTH) return false;
  try {
    const compiled = RE2JS.compile(text, RE2JS.CASE_INSENSITIVE);
    return compiled.programSize() <= PROGRAM_LIMIT && !compiled.test('');
  } catch (error) {
    if (error instanceof RE2JSException) return false;
    throw error;
  }
}

function none(example: unknown): { examples: unknown[]; defaultText: string } {
  return { examples: [example], defaultText: 'none' };
}

const rule = z
  .strictObject({
    name: z
      .string(NAME_FORM)
      .regex(/^[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?$/, NAME_FORM)
      .refine((name) => !OWN_WORDS.has(name), NAME_FORM)
      .describe('Its name: the finding is content.NAME, for [rules] and the record.')
      .meta({ examples: ['secrets'], title: 'name' }),
    words: z
      .array(z.string(WORD_FORM).refine(isWord, WORD_FORM))
      .max(WORD_LIMIT)
      .optional()
      .describe(
        'Words and phrases; "file:PATH" stands for the lines of a file. Case, width, accents composed or not, line breaks and invisible characters make no difference. "*" at an end: also within a longer word.',
      )
      .meta(none(['top secret', 'file:secret-words.txt', 'confident*'])),
    patterns: z
      .array(z.string(PATTERN_FORM).refine(isPattern, PATTERN_FORM))
      .max(PATTERN_LIMIT)
      .optional()
      .describe(
        "Regular expressions of RE2's syntax (no look-around, no back-references), matched in linear time against the same text as words, in which all white space is one space. Upper and lower case are the same.",
      )
      .meta(none(['\\bproject-[0-9]{4}\\b'])),
    where: z
      .array(z.enum(TEXT_PLACES))
      .min(1)
      .default(['subject', 'body', 'attachment-names'])
      .describe(
        'Where words and patterns are looked for. "body": all text, of text attachments too, decoded. "headers": all other header fields.',
      ),
    homoglyphs: z
      .boolean()
      .default(false)
      .describe(
        'Whether letters that look alike are the same in words: Cyrillic, Greek and accented ones, digits for letters (s3cret). Finds more, also what was not meant.',
      ),
    min_matches: z
      .int()
      .min(1)
      .max(100)
      .default(1)
      .describe('So many words or patterns must be found in a message; the same one counts each time.')
      .meta({ title: 'number' }),
    extensions: z
      .array(
        z
          .string(EXTENSION_FORM)
          .regex(/^[^\s./\\]{1,20}$/u, EXTENSION_FORM)
          .transform((text) => text.toLowerCase()),
      )
      .max(1000)
      .default([])
      .describe('Attachments whose names end so.'),
    types: z
      .array(z.enum(ATTACHMENT_TYPES))
      .default([])
      .describe(
        'Attachments that are this by their octets, whatever their name says: "executable", "script", "java", "office", "office-macro", "rtf", "pdf", "archive", "disk-image", "image" or "html".',
      ),
    encrypted: z
      .array(z.enum(ENCRYPTED_KINDS))
      .default([])
      .describe(
        'What nobody can look into: "archive" (zip, rar, 7z with a password), "document" (PDF, Office), "mail" (S/MIME, PGP).',
      ),
    double_extension: z
      .boolean()
      .default(false)
      .describe('Whether attachments like invoice.pdf.exe are found.'),
    mismatch: z
      .boolean()
      .default(false)
      .describe(
        'Whether attachments are found whose Content-Type or extension says something else than their octets.',
      ),
    inside_archives: z
      .boolean()
      .default(true)
      .describe('Whether the files in zip archives count as attachments, and those in archives within them.'),
    direction: z
      .enum(['in', 'out', 'both'])
      .default('both')
      .describe('Which mail: incoming, outgoing (with a login, or from own_networks), or both.'),
    domains: nameList(`expected ${DOMAIN_FORM}`)
      .prefault([])
      .describe(
        'Whose mail: the domain of the envelope sender of outgoing mail, of the recipient of incoming mail. Empty: all.',
      ),
    logins: selection()
      .prefault([])
      .describe('Only mail of these logins; "!pattern" takes one out. Empty: with any login and without.'),
    action: z
      .enum(['ignore', 'tag', 'junk', 'quarantine', 'defer', 'reject', 'discard'])
      .default('ignore')
      .describe(
        'What is done, unless [rules] says otherwise. "ignore": it stands in log and record, an audit.',
      ),
    copy_to: z
      .array(
        z
          .string(ADDRESS_FORM)
          .regex(/^[!#-'*+./0-9=?A-Z^_`a-z{|}~-]{1,64}@[0-9A-Za-z.-]{1,255}$/, ADDRESS_FORM),
      )
      .max(COPY_LIMIT)
      .default([])
      .describe(
        'Who gets a copy as a further recipient that is not seen, of mail that is delivered or held. By the milter only; not while the rule is in shadow.',
      ),
  })
  .refine(
    ({ words = [], patterns = [], extensions, types, encrypted, double_extension: double, mismatch }) =>
      words.length + patterns.length + extensions.length + types.length + encrypted.length > 0 ||
      double ||
      mismatch,
    { error: NOTHING_FORM, path: ['words'] },
  );

/** One rule as the operator set it. */
export type ContentRuleOptions = z.output<typeof rule>;

/** Keys of `[checks.content]`. */
export const CONTENT_OPTIONS = {
  max_size: byteSize()
    .refine((octets) => octets >= 1024 && octets <= LARGEST, 'expected a size from "1KiB" to "64MiB"')
    .prefault('10MiB')
    .meta({ title: 'size' })
    .describe(
      'Of a larger body so much is looked at. Up to two messages of this size are in memory at once.',
    ),
  rule: z
    .array(rule)
    .max(RULE_LIMIT)
    .refine(
      (list) => new Set(list.map(({ name }) => name)).size === list.length,
      'expected names of which none is there twice',
    )
    .default([])
    .describe(
      'What is looked for in the decoded content. Without any there is nothing to do, and nothing is done.',
    ),
};

export type ContentOptions = z.output<z.ZodObject<typeof CONTENT_OPTIONS>>;
