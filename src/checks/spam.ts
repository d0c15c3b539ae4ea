import { z } from 'zod';

import type { HeaderField, HeaderList } from '../mail/header.ts';
import type { Message } from '../mail/message.ts';
import type { SpamScan } from '../mail/spam-scan.ts';
import type { Finding, Outcome } from '../verdict/finding.ts';
import { messageCheck, UnmetNeed, type CodeInfo, type MessageFacts } from './check.ts';
import { byteSize } from './options.ts';
import { scanPreamble } from './spam-preamble.ts';
import { profilesOf, type Profile } from './spam-profiles.ts';

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
  needs: ['settings'],
  needsLittle: true,
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
        'Whose preferences and Bayes database the scanner uses. "recipient": those of the user it is for ("zeus@example.org", without address extension). "domain": those of "example.org". A message for several users is scanned by the milter once, for default_user, and by lmtp-filter once for each of them.',
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
        'Whether incoming spam is taken as SpamAssassin rewrites it with report_safe 1 or 2 in its local.cf: a report, with the original attached. When the rules mark the message as spam: by the milter for all recipients, or by lmtp-filter for those who want it (rewrite_body in the directory, docs/directories.md). false: the body stays as it is, whatever report_safe says.',
      ),
  },
  directionsOf: ({ logins, own_networks: own }) => (logins || own ? ['in', 'out'] : ['in']),
  replacesBody: (options) => options.rewrite_body,
  ready: (tools) => tools.scanner !== null,
  // One who has other preferences, or another training, than those the milter's scan was made with is scanned for anew.
  serves(kept, { facts, tools, options }) {
    if (!isConcerned(facts, options) || kept.kind === 'unavailable') return true;
    const scans = kept.findings.flatMap(({ scan }) => (scan === undefined ? [] : [scan]));
    const [scan] = scans;
    // Too large, or rewritten already: there is nothing to be had of a further scan.
    if (scan === undefined || scan.rewritten === true) return true;
    const { recipients } = facts.message.envelope;
    const [only, ...others] = profilesOf(recipients, options, tools.delimiter);
    return others.length === 0 && (only?.user ?? null) === (scan.user ?? null);
  },
  async run({ facts, tools, options, prior, signal }) {
    if (!isConcerned(facts, options)) return [];
    const { scanner } = tools;
    if (scanner === null) throw new UnmetNeed('no scanner is configured');
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
    const settings = prior.get('settings');
    const profiles = profilesOf(envelope.recipients, options, tools.delimiter, settings);
    const [first = NOBODY, ...others] = profiles;
    // The milter has one verdict for all of them.
    const together = others.length === 0 || !message.received;
    const incoming = facts.direction === 'in';
    // The signature over outgoing mail covers the body.
    const rewriting =
      incoming &&
      bodyOctets === body.size &&
      isRewritingWanted(settings, options.rewrite_body, profiles, message);
    const request = {
      message,
      preamble: scanPreamble(message, tools.hostname, tools.clock.now()),
      hide,
      bodyOctets,
      // What SpamAssassin would write into mail that comes in is not for others to read.
      wanted: rewriting ? 'rewriting' : incoming ? 'fields' : 'score',
    } as const;
    const scanFor = async (user: string | null): Promise<SpamScan> => {
      const scan = await scanner.scan({ ...request, user }, signal);
      return user === null ? scan : { ...scan, user };
    };
    if (together) {
      const user = others.length === 0 ? first.user : (options.default_user ?? null);
      return [...findings, ...scanFindings(await scanFor(user))];
    }
    for (let from = 0; from < profiles.length; from += SCANS_AT_ONCE) {
      const made = profiles.slice(from, from + SCANS_AT_ONCE).map(async ({ user, recipients }) => {
        const found = scanFindings(await scanFor(user));
        return recipients.flatMap((recipient) => found.map((finding) => ({ ...finding, recipient })));
      });
      findings.push(...(await Promise.all(made)).flat());
    }
    return findings;
  },
});

/** Scans of one message under way at once. */
const SCANS_AT_ONCE = 4;
const NOBODY: Profile = { user: null, recipients: [] };

function scanFindings(scan: SpamScan): Finding[] {
  const findings = [spamFinding(scan)];
  if (scan.action !== undefined) findings.push(actionFinding(scan.action));
  return findings;
}

/**
 * Whether the scanner's report is asked for. By the milter, which gives one body to all, when all want it and nobody's own preferences could say
 * otherwise; by lmtp-filter when somebody does.
 */
function isRewritingWanted(
  settings: Outcome | undefined,
  site: boolean,
  profiles: readonly Profile[],
  { envelope, received }: Message,
): boolean {
  const own = new Map<number, readonly (boolean | undefined)[]>();
  for (const { recipient, settings: of } of settings?.kind === 'found' ? settings.findings : []) {
    if (recipient !== undefined && of !== undefined)
      own.set(
        recipient,
        of.map(({ rewriteBody }) => rewriteBody),
      );
  }
  const wanted = envelope.recipients.flatMap((_, index) =>
    (own.get(index) ?? [undefined]).map((one) => one ?? site),
  );
  if (received) return wanted.includes(true);
  return site && wanted.every(Boolean) && profiles.length === 1;
}

interface Concern {
  readonly logins: boolean;
  readonly own_networks: boolean;
}

function isConcerned({ direction, client }: MessageFacts, { logins, own_networks: own }: Concern): boolean {
  if (direction === 'in') return true;
  return client.login === null ? own : logins;
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
