import { z } from 'zod';

import { settingsKey } from '../mail/address.ts';
import type { Recipient } from '../mail/envelope.ts';
import type { HeaderField, HeaderList } from '../mail/header.ts';
import type { SpamScan } from '../mail/spam-scan.ts';
import type { Finding } from '../verdict/finding.ts';
import { messageCheck, UnmetNeed, type CodeInfo, type MessageFacts } from './check.ts';
import { byteSize } from './options.ts';
import { scanPreamble } from './spam-preamble.ts';

/** Rules named in a finding's detail; all of them are in its scan. */
const RULES_SHOWN = 20;
/** spamc takes no larger message; whoever wants more than this to be scanned wants `truncate`. */
const LARGEST_SCAN = 256 * 1024 ** 2;
const USER_FORM = 'expected 1 to 100 printable ASCII characters without a space';

/** Fields that tell what a scanner or we found, or what the envelope was: from outside they are no more than a claim. */
const HIDDEN = ['x-spam-', 'x-envelope-', 'x-postern-'];

/** rspamd's names of what it would do, each a code of its own. */
const ACTIONS = ['greylist', 'add-header', 'rewrite-subject', 'soft-reject', 'reject', 'other'] as const;

/** What a content scanner gives a message. */
export const spamCheck = messageCheck({
  name: 'spam',
  stage: 'message',
  summary: 'The score that SpamAssassin (or rspamd) gives a message. docs/spam.md says how.',
  directions: ['in'],
  needs: [],
  codes: {
    'spam.scored': {
      meaning: 'The scanner gave its score; what is done about it follows from the thresholds.',
      action: 'ignore',
    },
    'spam.too-large': {
      meaning: 'The message is larger than max_size and was not scanned.',
      action: 'ignore',
    },
    'spam.truncated': {
      meaning: 'The message is larger than max_size, and only its beginning was scanned.',
      action: 'ignore',
    },
    ...scannerActions(),
  },
  unavailable: 'defer',
  deadline: '60s',
  options: {
    max_size: byteSize()
      .refine((octets) => octets >= 1024 && octets <= LARGEST_SCAN, 'expected a size from "1KiB" to "256MiB"')
      .prefault('500KiB')
      .meta({ title: 'size' })
      .describe('Larger messages are not scanned, or not to their end.'),
    truncate: z
      .boolean()
      .default(false)
      .describe(
        'Whether of a larger message the first max_size octets are scanned. Spam that is made large on purpose does not get by then.',
      ),
    logins: z.boolean().default(false).describe('Whether mail of clients with a login is scanned, too.'),
    own_networks: z
      .boolean()
      .default(false)
      .describe('Whether mail from own_networks, and from sendmail(1), without a login is scanned, too.'),
    user: z
      .enum(['none', 'recipient', 'domain'])
      .default('none')
      .describe(
        'Whose preferences and Bayes database the scanner uses. "recipient": those of the user it is for ("zeus@example.org", without address extension). "domain": those of "example.org". A message is scanned once: when it is for several users it goes by default_user.',
      ),
    default_user: z
      .string(USER_FORM)
      .regex(/^[!-~]{1,100}$/, USER_FORM)
      .optional()
      .describe('The user for all mail that "user" above names none for.')
      .meta({ title: 'text', examples: ['site'], defaultText: "the scanner's own" }),
    rewrite_body: z
      .boolean()
      .default(false)
      .describe(
        'Whether incoming spam is taken as SpamAssassin rewrites it with report_safe 1 or 2 in its local.cf: a report, with the original attached. By the milter only, when the rules mark the message as spam. false: the body stays as it is, whatever report_safe says.',
      ),
  },
  directionsOf: ({ logins, own_networks: own }) => (logins || own ? ['in', 'out'] : ['in']),
  replacesBody: (options) => options.rewrite_body,
  ready: (tools) => tools.scanner !== null,
  async run({ facts, tools, options, signal }) {
    if (!isConcerned(facts, options)) return [];
    if (tools.scanner === null) throw new UnmetNeed('no scanner is configured');
    const { message } = facts;
    const { body, envelope } = message;
    const headerOctets = octetsOf(message.headers);
    const size = headerOctets + body.size;
    const findings: Finding[] = [];
    let bodyOctets = body.size;
    if (size > options.max_size) {
      const detail = `message of ${size} octets is larger than max_size, ${options.max_size} octets`;
      // Half a header section says nothing of a message.
      if (!options.truncate || headerOctets > options.max_size) return [{ code: 'spam.too-large', detail }];
      findings.push({ code: 'spam.truncated', detail });
      bodyOctets = options.max_size - headerOctets;
    }
    const incoming = facts.direction === 'in';
    // The signature over outgoing mail covers the body; lmtp-filter has no other body to give.
    const rewriting = options.rewrite_body && incoming && !message.received && bodyOctets === body.size;
    const scan = await tools.scanner.scan(
      {
        message,
        preamble: scanPreamble(message, tools.hostname, tools.clock.now()),
        hide,
        bodyOctets,
        user: userOf(envelope.recipients, options, tools.delimiter),
        // What SpamAssassin would write into mail that comes in is not for others to read.
        wanted: rewriting ? 'rewriting' : incoming ? 'fields' : 'score',
      },
      signal,
    );
    findings.push(spamFinding(scan));
    if (scan.action !== undefined) findings.push(actionFinding(scan.action));
    return findings;
  },
});

interface Concern {
  readonly logins: boolean;
  readonly own_networks: boolean;
}

function isConcerned({ direction, client }: MessageFacts, { logins, own_networks: own }: Concern): boolean {
  if (direction === 'in') return true;
  return client.login === null ? own : logins;
}

interface UserOptions {
  readonly user: 'none' | 'recipient' | 'domain';
  readonly default_user?: string | undefined;
}

/** Who the scan is for: the one user, or domain, that all recipients come to. */
function userOf(recipients: readonly Recipient[], options: UserOptions, delimiter: string): string | null {
  const otherwise = options.default_user ?? null;
  if (options.user === 'none') return otherwise;
  let only: string | null = null;
  for (const { address } of recipients) {
    const name = options.user === 'domain' ? address.domain : settingsKey(address, delimiter);
    if (name === '' || (only !== null && only !== name)) return otherwise;
    only = name;
  }
  return only ?? otherwise;
}

/** What a scan means as a fact; the same for one just made and one kept from an earlier stage. */
export function spamFinding(scan: SpamScan): Finding {
  const shown = scan.rules.slice(0, RULES_SHOWN).join(',');
  const more = scan.rules.length - RULES_SHOWN;
  const rules = more > 0 ? `${shown} and ${more} more` : shown;
  return {
    code: 'spam.scored',
    detail: `${scan.score.toFixed(1)} of ${scan.required.toFixed(1)} points (${rules === '' ? 'no rule hit' : rules})`,
    score: scan.score,
    scan,
  };
}

function scannerActions(): Readonly<Record<string, CodeInfo>> {
  return Object.fromEntries(
    ACTIONS.map((word): [string, CodeInfo] => {
      const named = word === 'other' ? 'something else' : `"${word.replace('-', ' ')}"`;
      return [`spam.action-${word}`, { meaning: `rspamd says ${named}.`, action: 'ignore' }];
    }),
  );
}

function actionFinding(action: string): Finding {
  const said = action.replaceAll(' ', '-');
  const word = ACTIONS.find((known) => known === said) ?? 'other';
  return { code: `spam.action-${word}`, detail: `the scanner says "${action}"` };
}

function hide(field: HeaderField): boolean {
  const name = field.name.toLowerCase();
  return HIDDEN.some((prefix) => name.startsWith(prefix));
}

function octetsOf(headers: HeaderList): number {
  let size = 0;
  for (const { name, value } of headers) size += name.length + value.length + 3;
  return size;
}
