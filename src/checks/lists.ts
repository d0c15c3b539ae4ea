import type { Address, ReversePath } from '../mail/address.ts';
import { authors } from '../mail/author.ts';
import type { Finding, Outcome } from '../verdict/finding.ts';
import { AUTHORS_LIMIT } from './author.ts';
import { messageCheck, UnmetNeed } from './check.ts';
import { listing, together, type Listing } from './sender-list.ts';
import { accountsBehind } from './settings.ts';

/** What a recipient who wants a sender's mail does not want to be asked about it. */
const WAIVED = ['spam'];

/** Who is on the recipients' own lists, and whether it is really them. */
export const listsCheck = messageCheck({
  name: 'lists',
  stage: 'message',
  partOf: 'settings',
  summary: "Whether the sender is on the recipient's own allow or block list.",
  directions: ['in'],
  needs: ['settings', 'spf', 'dkim', 'dmarc'],
  needsLittle: true,
  codes: {
    'lists.allow': {
      meaning:
        'The recipient wants mail of this sender, who is proven by DMARC or, where the domain has none, by a DKIM signature or SPF of the same domain. The spam score is set aside for this recipient, and what the rule "allow" sets aside.',
      action: 'allow',
    },
    'lists.allow-unproven': {
      meaning:
        'The sender is on the allow list, but nothing proves that it is them: the entry does not count, as anyone can write any address.',
      action: 'ignore',
    },
    'lists.block': {
      meaning:
        'The sender, as envelope or From name them, is on the block list of the recipient. With "reject", mail for one recipient is refused in session; for one of several, lmtp-filter refuses it and the sender gets a bounce.',
      action: 'junk',
    },
  },
  // It has what it needs unless the settings are unavailable, and their rule says what that means.
  unavailable: 'ignore',
  deadline: '5s',
  headersOnly: true,
  options: {},
  ready: ({ directory }) => directory.keepsSettings,
  serves: () => false,
  run({ facts, prior }) {
    const own = prior.get('settings');
    if (own === undefined) return [];
    if (own.kind === 'unavailable') throw new UnmetNeed(own.detail);
    const named = sendersOf(facts.sender, authors(facts.message.headers) ?? []);
    const proof = new Proof(prior, facts.sender);
    const isProven = (address: Address): boolean => proof.covers(address);
    const findings: Finding[] = [];
    for (const { recipient, settings } of own.findings) {
      if (recipient === undefined || settings === undefined) continue;
      const listed = together(
        accountsBehind(settings).map((account) =>
          account === null ? null : listing(account, named, isProven),
        ),
      );
      if (listed === null) continue;
      const whose = settings.map(({ mailbox }) => mailbox ?? 'other hosts').join(', ');
      findings.push({
        code: `lists.${listed}`,
        detail: `${named.map(({ raw }) => raw).join(', ')}: ${WORDS[listed]} ${whose}`,
        recipient,
        setting: 'directory',
        ...(listed === 'allow' ? { waives: WAIVED } : {}),
      });
    }
    return findings;
  },
});

const WORDS: Readonly<Record<Listing, string>> = {
  allow: 'proven, and wanted by',
  'allow-unproven': 'not proven, and named in the allow list of',
  block: 'not wanted by',
};

function sendersOf(sender: ReversePath, from: readonly Address[]): readonly Address[] {
  const envelope = sender.kind === 'null' ? [] : [sender.address];
  const seen = new Set<string>();
  return [...from.slice(0, AUTHORS_LIMIT), ...envelope].filter(({ raw }) => {
    const fresh = !seen.has(raw);
    seen.add(raw);
    return fresh;
  });
}

/**
 * What shows that a message is of whom it says. A list entry that lets mail past the spam score is worth forging, so an address counts only
 * when its own domain answers for it; and never when DMARC fails, whatever else passes.
 */
class Proof {
  /** Domain in From that DMARC passes for. */
  readonly #author: string | null;
  /** Domains of valid signatures, and that of the envelope sender by SPF. */
  readonly #domains: readonly string[];
  readonly #envelope: Address | null;

  constructor(prior: ReadonlyMap<string, Outcome>, sender: ReversePath) {
    const dmarc = codesOf(prior.get('dmarc'));
    const passes = dmarc.includes('dmarc.pass') || dmarc.includes('dmarc.override');
    // Without the check there is no policy to fail.
    const fails =
      prior.get('dmarc')?.kind === 'unavailable' || (dmarc.length > 0 && !passes && !isNone(dmarc));
    this.#author = passes ? (propertiesOf(prior.get('dmarc'), 'dmarc', 'header.from')[0] ?? null) : null;
    const spf = fails ? [] : propertiesOf(prior.get('spf'), 'spf', 'smtp.mailfrom');
    const dkim = fails || passes ? [] : propertiesOf(prior.get('dkim'), 'dkim', 'header.d');
    this.#domains = [...dkim, ...(passes ? [] : spf)];
    this.#envelope = sender.kind === 'address' && spf.length > 0 ? sender.address : null;
  }

  covers(address: Address): boolean {
    if (address.domain === '') return false;
    if (this.#envelope?.raw === address.raw) return true;
    if (this.#author === address.domain) return true;
    return this.#domains.some((domain) => answersFor(domain, address.domain));
  }
}

function isNone(codes: readonly string[]): boolean {
  return codes.every((code) => code === 'dmarc.none');
}

function codesOf(outcome: Outcome | undefined): readonly string[] {
  return outcome?.kind === 'found' ? outcome.findings.map(({ code }) => code) : [];
}

/** Domains that a check came to `pass` for; dmarc.override says `fail` there, and passes all the same. */
function propertiesOf(outcome: Outcome | undefined, check: string, property: string): readonly string[] {
  if (outcome?.kind !== 'found') return [];
  return outcome.findings.flatMap(({ code, auth }) =>
    code === `${check}.pass` || code === `${check}.override`
      ? (auth?.properties ?? [])
          .filter(([name]) => name === property)
          .map(([, value]) => value.slice(value.lastIndexOf('@') + 1).toLowerCase())
      : [],
  );
}

/** The same domain, or one above it. Stricter than DMARC: somebody's subdomain does not answer for the domain. */
function answersFor(proven: string, domain: string): boolean {
  return proven === domain || (proven.includes('.') && domain.endsWith(`.${proven}`));
}
