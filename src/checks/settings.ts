import { z } from 'zod';

import { settingsKey, type Address } from '../mail/address.ts';
import type { Account, Destination } from '../ports/directory.ts';
import type { Finding } from '../verdict/finding.ts';
import type { MailboxSettings } from '../verdict/rules.ts';
import { messageCheck, rcptCheck, type CheckTools } from './check.ts';
import { listing, together } from './sender-list.ts';

/** Recipients whose settings are looked up; Postfix's smtpd_recipient_limit. Those beyond have the site's. */
export const RECIPIENT_LIMIT = 1000;
/** Mailboxes of one alias that are looked up; an alias of more has the site's. */
export const MAILBOX_LIMIT = 100;
/** Recipients that are asked about at once. */
const AT_ONCE = 16;
const TAG_LIMIT = 60;

const TAG_FORM = `expected texts of 1 to ${TAG_LIMIT} printable characters by language: { es = "[NO DESEADO]" }`;

const OPTIONS = {
  subject_tags: z
    // A union of one, so that it is a value for the manual and not a section of its own.
    .union([
      z.record(
        z.string().regex(/^[a-z]{2,8}(?:-[a-z0-9]{1,8}){0,4}$/, TAG_FORM),
        z.string(TAG_FORM).regex(/^\P{Cc}{1,60}$/u, TAG_FORM),
      ),
    ])
    .default({})
    .describe(
      'Subject tags by language, for accounts with a language in the directory: "es" is for "es-MX", too. Others get subject_tag.',
    )
    .meta({ title: 'table', defaultText: 'none', examples: [{ es: '[NO DESEADO]', de: '[SPAM-VERDACHT]' }] }),
};

type Options = z.output<z.ZodObject<typeof OPTIONS>>;

/** What is set for each recipient, so that each gets the verdict of their own settings. */
export const settingsCheck = messageCheck({
  name: 'settings',
  stage: 'message',
  summary:
    'Settings of single recipients from [directory] and [[account]]: thresholds, subject tag, allow and block lists. Made when there can be some. docs/directories.md says where they come from.',
  directions: ['in'],
  needs: [],
  codes: {
    'settings.own': {
      meaning:
        'The recipient is an alias, or something is set for the mailbox; what that does is said by the settings.',
      action: 'ignore',
    },
  },
  unavailable: 'defer',
  deadline: '5s',
  headersOnly: true,
  options: OPTIONS,
  ready: ({ directory }) => directory.keepsSettings,
  // The milter's recipients are those before aliases were followed.
  serves: () => false,
  async run({ facts, tools, options, signal }) {
    const { envelope, received } = facts.message;
    const known = new Map<string, Promise<Found>>();
    const findings: Finding[] = [];
    const recipients = envelope.recipients.slice(0, RECIPIENT_LIMIT);
    for (let from = 0; from < recipients.length; from += AT_ONCE) {
      const some = recipients.slice(from, from + AT_ONCE).map(({ address }) => {
        const key = settingsKey(address, tools.delimiter);
        const found = known.get(key) ?? settingsOf(address, received, tools, options, signal);
        known.set(key, found);
        return found;
      });
      for (const [index, found] of (await Promise.all(some)).entries()) {
        if (found.settings.length > 0) findings.push(findingOf(found, from + index));
      }
    }
    return findings;
  },
});

/** The same for one recipient, before there is any content. */
export const settingsRcptCheck = rcptCheck({
  name: 'settings-rcpt',
  stage: 'rcpt',
  partOf: 'settings',
  policyOnly: true,
  summary: 'Settings of the recipient: who is on the block list, and which recipients may come together.',
  directions: ['in'],
  needs: [],
  codes: {
    'settings-rcpt.own': {
      meaning: 'Something is set for the mailbox of the recipient.',
      action: 'ignore',
    },
    'settings-rcpt.allow': {
      meaning:
        'The envelope sender is on the allow list of the recipient. Whether it is really them shows when the content is there: lists.allow.',
      action: 'ignore',
    },
    'settings-rcpt.block': {
      meaning:
        'The envelope sender is on the block list of the recipient, of all mailboxes when it is an alias. With "reject" nobody gets a bounce for it; set lists.block as well, for senders that only From shows.',
      action: 'ignore',
    },
  },
  unavailable: 'ignore',
  deadline: '3s',
  options: OPTIONS,
  ready: ({ directory }) => directory.keepsSettings,
  async run({ facts, tools, options, signal }) {
    const found = await settingsOf(facts.recipient, false, tools, options, signal);
    if (found.settings.length === 0) return [];
    const { recipient: _, ...own } = findingOf(found, 0);
    const findings: Finding[] = [{ ...own, code: 'settings-rcpt.own' }];
    const { sender } = facts;
    if (sender.kind === 'null') return findings;
    const listings = found.accounts.map((account) =>
      account === null ? null : listing(account, [sender.address], () => true),
    );
    const listed = together(listings);
    if (listed === 'allow' || listed === 'block') {
      const detail = `${sender.address.raw} is on the ${listed} list of ${facts.recipient.raw}`;
      findings.push({ code: `settings-rcpt.${listed}`, detail, setting: 'directory' });
    }
    return findings;
  },
});

interface Found {
  /** Empty: nothing is set. */
  readonly settings: readonly MailboxSettings[];
  /** Of each mailbox in the same order; null: it leaves for other hosts. */
  readonly accounts: readonly (Account | null)[];
}

const NOTHING: Found = { settings: [], accounts: [] };

/** @param expanded whether aliases were followed: an alias of itself and others then stands for itself. @throws {NeighbourError} */
async function settingsOf(
  recipient: Address,
  expanded: boolean,
  { directory, delimiter }: CheckTools,
  options: Options,
  signal: AbortSignal,
): Promise<Found> {
  const own = settingsKey(recipient, delimiter);
  const mailboxes = mailboxesOf(await directory.destination(recipient, signal), own, expanded);
  if (mailboxes.length > MAILBOX_LIMIT) return NOTHING;
  const accounts = await Promise.all(
    mailboxes.map(async (mailbox) => (mailbox === null ? null : await directory.account(mailbox, signal))),
  );
  const settings = accounts.map((account, index) =>
    mailboxSettings(mailboxes[index] ?? null, account, options),
  );
  const [only] = settings;
  const [account] = accounts;
  const alone = settings.length === 1 && only?.mailbox === own;
  if (alone && Object.keys(only).length === 1 && !hasLists(account ?? null)) return NOTHING;
  return { settings, accounts };
}

function mailboxesOf(destination: Destination, own: string, expanded: boolean): readonly (string | null)[] {
  switch (destination.kind) {
    case 'unknown':
      // Where nobody lists mailboxes, an address is the name of its account.
      return [own];
    case 'delivered': {
      const { mailboxes, elsewhere } = destination;
      if (expanded && mailboxes.includes(own)) return [own];
      return elsewhere && !expanded ? [...mailboxes, null] : mailboxes;
    }
  }
}

function mailboxSettings(mailbox: string | null, account: Account | null, options: Options): MailboxSettings {
  if (mailbox === null || account === null) return { mailbox: null };
  const { thresholds, rewriteBody } = account;
  const subjectTag = tagOf(account, options);
  return {
    mailbox,
    ...(thresholds === undefined ? {} : { thresholds }),
    ...(subjectTag === undefined ? {} : { subjectTag }),
    ...(rewriteBody === undefined ? {} : { rewriteBody }),
  };
}

/** undefined: the site's. */
function tagOf({ subjectTag, language }: Account, { subject_tags: tags }: Options): string | undefined {
  if (typeof subjectTag === 'string') return subjectTag;
  if (subjectTag === false) return '';
  // RFC 4647 §3.4: the range is cut from its end until it fits.
  for (
    let range = language ?? '';
    range !== '';
    range = range.slice(0, Math.max(0, range.lastIndexOf('-')))
  ) {
    if (Object.hasOwn(tags, range)) return tags[range];
  }
  return undefined;
}

function hasLists(account: Account | null): boolean {
  if (account === null) return false;
  const { allow, block, domainLists = {} } = account;
  return [allow, block, domainLists.allow, domainLists.block].some((list) => (list ?? []).length > 0);
}

const accounts = new WeakMap<readonly MailboxSettings[], readonly (Account | null)[]>();

/** The accounts that the settings of a finding are of, mailbox by mailbox; null: it leaves for other hosts. They are in no record. */
export function accountsBehind(settings: readonly MailboxSettings[]): readonly (Account | null)[] {
  return accounts.get(settings) ?? [];
}

function findingOf({ settings, accounts: all }: Found, recipient: number): Finding {
  accounts.set(settings, all);
  return { code: 'settings.own', detail: settings.map(describe).join('; '), recipient, settings };
}

/** For people. */
function describe({ mailbox, thresholds, subjectTag, rewriteBody }: MailboxSettings): string {
  if (mailbox === null) return 'other hosts: as for the site';
  const bands = Object.entries(thresholds ?? {}).map(([band, points]) => `${band} ${points ?? 'never'}`);
  const said = [
    ...bands,
    ...(subjectTag === undefined ? [] : [`subject tag "${subjectTag}"`]),
    ...(rewriteBody === undefined ? [] : [`report ${rewriteBody ? 'wanted' : 'not wanted'}`]),
  ];
  return `${mailbox}: ${said.length === 0 ? 'as for the site' : said.join(', ')}`;
}
