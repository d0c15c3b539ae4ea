import { lowerAscii } from '../mail/address.ts';
import type { Direction } from '../mail/envelope.ts';
import type { ContentAnswer, ContentRule } from '../ports/content-scanner.ts';
import type { Finding } from '../verdict/finding.ts';
import { selects } from './address-pattern.ts';
import { messageCheck, UnmetNeed, type CodeInfo, type MessageFacts } from './check.ts';
import { CONTENT_OPTIONS, type ContentOptions, type ContentRuleOptions } from './content-options.ts';

/** What rules of the site's own find in the decoded content of messages. */
export const contentCheck = messageCheck({
  name: 'content',
  stage: 'message',
  summary:
    'Words, patterns and attachments that rules of your own look for, in the decoded content. docs/content.md says how.',
  directions: ['in', 'out'],
  needs: [],
  codes: {
    'content.unparsable': {
      meaning:
        'Something in the message could not be read as it was meant (a broken or very deep structure, an unknown charset), so that rules may have missed it.',
      action: 'ignore',
    },
    'content.too-large': {
      meaning: 'The message, its text or an archive in it is too large to be looked at to its end.',
      action: 'ignore',
    },
  },
  codesOf: ({ rule: rules }): Readonly<Record<string, CodeInfo>> =>
    Object.fromEntries(
      rules.map(({ name, action, copy_to: copyTo }) => [
        `content.${name}`,
        { meaning: `The rule "${name}" found what it looks for.`, action, copyTo },
      ]),
    ),
  directionsOf: ({ rule: rules }): readonly Direction[] =>
    (['in', 'out'] as const).filter((direction) => rules.some((rule) => isFor(rule, direction))),
  unavailable: 'defer',
  deadline: '30s',
  options: CONTENT_OPTIONS,
  ready: (_, { rule: rules }) => rules.length > 0,
  async run({ facts, tools, options, signal }) {
    const { message } = facts;
    const concerned = options.rule.map((rule) => concerns(rule, facts));
    const wanted = [...concerned.keys()].filter((position) => concerned[position] !== NOBODY);
    if (wanted.length === 0) return [];
    if (tools.contentScanner === null) throw new UnmetNeed('there is no content scanner in this process');
    const bodyOctets = Math.min(message.body.size, options.max_size);
    const answer = await tools.contentScanner.scan(
      { rules: scannerRules(options), wanted, headers: message.headers, body: message.body, bodyOctets },
      signal,
    );
    const findings: Finding[] = [];
    for (const { rule: position, detail } of answer.hits) {
      const rule = options.rule[position];
      const who = concerned[position];
      if (rule === undefined || who === undefined) continue;
      const finding = { code: `content.${rule.name}`, detail };
      if (who === EVERYBODY) findings.push(finding);
      else for (const recipient of who) findings.push({ ...finding, recipient });
    }
    findings.push(...limitFindings(answer, message.body.size, options));
    return findings;
  },
});

/** Positions of the recipients that a rule is for; EVERYBODY: the message as a whole. */
type Concerned = readonly number[];

const NOBODY: Concerned = [];
const EVERYBODY: Concerned = [-1];

function concerns(rule: ContentRuleOptions, facts: MessageFacts): Concerned {
  const { direction, client, sender, message } = facts;
  if (!isFor(rule, direction)) return NOBODY;
  if (!selects(rule.logins, client.login === null ? null : lowerAscii(client.login))) return NOBODY;
  const { domains } = rule;
  if (domains.size === 0) return EVERYBODY;
  if (direction === 'out') {
    return sender.kind === 'address' && domains.has(sender.address.domain) ? EVERYBODY : NOBODY;
  }
  const { recipients } = message.envelope;
  const positions = [...recipients.keys()].filter((at) => domains.has(recipients[at]?.address.domain ?? ''));
  if (positions.length === 0) return NOBODY;
  return positions.length === recipients.length ? EVERYBODY : positions;
}

function isFor({ direction }: ContentRuleOptions, wanted: Direction): boolean {
  return direction === 'both' || direction === wanted;
}

function limitFindings(
  { unparsable, tooLarge }: ContentAnswer,
  size: number,
  { max_size: limit }: ContentOptions,
): Finding[] {
  const findings: Finding[] = [];
  const large = [...tooLarge];
  if (size > limit) large.unshift(`a body of ${size} octets, of which ${limit} (max_size) were looked at`);
  if (large.length > 0) findings.push({ code: 'content.too-large', detail: large.join('; ') });
  if (unparsable.length > 0) findings.push({ code: 'content.unparsable', detail: unparsable.join('; ') });
  return findings;
}

/** Made once for each configuration: the scanner knows them again by their identity. */
const known = new WeakMap<ContentOptions, readonly ContentRule[]>();

function scannerRules(options: ContentOptions): readonly ContentRule[] {
  let rules = known.get(options);
  if (rules === undefined) known.set(options, (rules = options.rule.map(scannerRule)));
  return rules;
}

function scannerRule(rule: ContentRuleOptions): ContentRule {
  return {
    words: rule.words ?? [],
    patterns: rule.patterns ?? [],
    where: rule.where,
    homoglyphs: rule.homoglyphs,
    minMatches: rule.min_matches,
    attachments: {
      extensions: rule.extensions,
      types: rule.types,
      encrypted: rule.encrypted,
      doubleExtension: rule.double_extension,
      mismatch: rule.mismatch,
      insideArchives: rule.inside_archives,
    },
  };
}
