import { z } from 'zod';

import { printable } from '../mail/reply.ts';
import type { ListHealth } from '../ports/list-health.ts';
import { DnsError, type DnsAnswer, type Resolver } from '../ports/resolver.ts';
import type { Explanation, Finding } from '../verdict/finding.ts';
import { mailCheck, type MailFacts } from './check.ts';
import { withinDnsBudget } from './dns-budget.ts';
import { blockLists, compileList, type BlockList } from './dnsbl-lists.ts';
import { isAddressSubject, labelsOf, listName, type ListSubject } from './dnsbl-names.ts';

/** Characters of a list's own reason. */
const REASON_LIMIT = 200;

/** Answers of one list that are looked at, and those that are shown. */
const ANSWERS_LIMIT = 32;
const ANSWERS_SHOWN = 4;

const threshold = z.union([z.number().positive(), z.literal(false)]).meta({ title: 'points or false' });

/** Block lists and welcome lists in the DNS. RFC 5782. */
export const dnsblCheck = mailCheck({
  name: 'dnsbl',
  stage: 'mail',
  policyOnly: true,
  waivable: true,
  summary:
    'Block lists and welcome lists in the DNS, weighed together: of addresses (the client) and of domains (HELO, sender, name of the client). Nothing is asked before there is a [[checks.dnsbl.list]].',
  directions: ['in'],
  needs: [],
  codes: {
    'dnsbl.reject': {
      meaning: 'The points of all lists come to checks.dnsbl.reject or more.',
      action: 'reject',
    },
    'dnsbl.greylist': {
      meaning:
        'The points come to checks.dnsbl.greylist or more: greylisting makes such clients wait, in any mode.',
      action: 'ignore',
    },
    'dnsbl.listed': {
      meaning: 'On a block list, with fewer points than either threshold.',
      action: 'ignore',
    },
    'dnsbl.welcome': {
      meaning:
        'The points come to checks.dnsbl.welcome or less: on welcome lists, and hardly on block lists. With "allow" it sets aside what HELO, PTR, MX, SPF and greylisting have found.',
      action: 'ignore',
    },
    'dnsbl.unavailable-list': {
      meaning:
        'A list did not count: it gave no answer in time, does not serve our name server, or is not in order.',
      action: 'ignore',
    },
  },
  unavailable: 'ignore',
  deadline: '4s',
  options: {
    reject: threshold
      .default(1)
      .describe('From this sum of points on the finding is dnsbl.reject. false: never.'),
    greylist: threshold
      .default(false)
      .describe('From this sum on it is dnsbl.greylist. false: never.')
      .meta({ examples: [0.5] }),
    welcome: z
      .union([z.number().negative(), z.literal(false)])
      .default(-1)
      .describe('Down from this sum it is dnsbl.welcome. false: never.')
      .meta({ title: 'points or false' }),
    reasons: z
      .boolean()
      .default(false)
      .describe(
        "Whether a list's own reason (its TXT record) is asked for when it lists something. It stands in the record, and in the refusal as the list's words.",
      ),
    list: blockLists.default([]).describe('A list that is asked. None is asked that does not stand here.'),
  },
  run({ facts, tools, options, signal, deadlineMs }) {
    const lists = compiled(options);
    if (lists.length === 0) return [];
    const round = new Round(lists, facts, tools.blockLists);
    round.fromMemory(tools.resolver);
    if (round.open.length === 0 && !(options.reasons && round.isListed)) return conclude(round, options);
    return withinDnsBudget(signal, deadlineMs, async (limit) => {
      await round.ask(tools.resolver, limit);
      if (options.reasons) await round.askReasons(tools.resolver, limit);
      signal.throwIfAborted();
      return conclude(round, options);
    });
  },
});

/** The lists of a configuration that the schema has read: those that policyd has to watch. */
export function watchedLists(table: unknown): readonly BlockList[] {
  const read = z.looseObject({ enabled: z.literal(true), list: blockLists }).safeParse(table);
  return read.success ? read.data.list.map(compileList) : [];
}

interface Options {
  readonly reject: number | false;
  readonly greylist: number | false;
  readonly welcome: number | false;
  readonly list: z.output<typeof blockLists>;
}

const COMPILED = new WeakMap<object, readonly BlockList[]>();

function compiled(options: Options): readonly BlockList[] {
  let lists = COMPILED.get(options);
  if (lists === undefined) COMPILED.set(options, (lists = options.list.map(compileList)));
  return lists;
}

interface Question {
  readonly list: BlockList;
  /** What is asked about, for people. */
  readonly about: string;
  readonly name: string;
}

interface Listing extends Question {
  readonly addresses: readonly string[];
  readonly points: number;
  reason: string | null;
}

/** All lists for one message. */
class Round {
  /** Questions that memory had no answer to. */
  open: Question[] = [];
  readonly listings: Listing[] = [];
  /** By list: why it does not count. */
  readonly missing = new Map<string, string>();
  readonly #health: ListHealth;

  constructor(lists: readonly BlockList[], facts: MailFacts, health: ListHealth) {
    this.#health = health;
    const known = new Map<ListSubject, string | null>();
    for (const list of lists) {
      const questions: Question[] = [];
      for (const subject of list.subjects) {
        let about = known.get(subject);
        if (about === undefined) known.set(subject, (about = labelsOf(subject, facts)));
        const name = about === null ? null : listName(about, list.zone);
        if (about === null || name === null || questions.some((other) => other.name === name)) continue;
        questions.push({ list, about: isAddressSubject(subject) ? facts.client.address : about, name });
      }
      if (questions.length === 0) continue;
      if (health.trusted(list.name)) this.open.push(...questions);
      else this.#lacks(list, 'skipped', 'is not in order');
    }
  }

  get isListed(): boolean {
    return this.listings.length > 0;
  }

  fromMemory(resolver: Resolver): void {
    this.open = this.open.filter((question) => {
      const answer = resolver.cached?.(question.name, 'A') ?? null;
      if (answer !== null) this.#hear(question, answer);
      return answer === null;
    });
  }

  async ask(resolver: Resolver, limit: AbortSignal): Promise<void> {
    await Promise.all(
      this.open.map(async (question) => {
        try {
          this.#hear(question, await resolver.query(question.name, 'A', limit));
        } catch (error) {
          if (!(error instanceof DnsError)) throw error;
          this.#failed(question, error);
        }
      }),
    );
  }

  /** A reason that can't be had is none. */
  async askReasons(resolver: Resolver, limit: AbortSignal): Promise<void> {
    await Promise.all(
      this.listings.map(async (listing) => {
        try {
          listing.reason = reasonOf(await resolver.query(listing.name, 'TXT', limit));
        } catch (error) {
          if (!(error instanceof DnsError)) throw error;
        }
      }),
    );
  }

  #hear(question: Question, answer: DnsAnswer): void {
    const { list } = question;
    if (answer.kind !== 'records') {
      this.#health.noted(list.name, 'unlisted');
      return;
    }
    const addresses = answer.records
      .slice(0, ANSWERS_LIMIT)
      .flatMap((record) => (record.type === 'A' ? [record.text] : []));
    // RFC 5782 §2.3: a list answers out of 127.0.0.0/8; anything else comes of a domain that is parked, or of a name server that lies.
    const foreign = addresses.find((address) => !address.startsWith('127.'));
    const blocked = addresses.find((address) => list.blocked(address));
    if (foreign !== undefined) this.#lacks(list, 'broken', `answers ${foreign}`);
    else if (blocked !== undefined)
      this.#lacks(list, 'blocked', `does not serve our name server (${blocked})`);
    else this.#weigh(question, addresses);
  }

  #weigh(question: Question, addresses: readonly string[]): void {
    let points: number | null = null;
    for (const address of addresses) {
      const weight = question.list.weigh(address);
      if (weight !== null && (points === null || Math.abs(weight) > Math.abs(points))) points = weight;
    }
    this.#health.noted(question.list.name, points === null ? 'uncounted' : 'listed');
    if (points !== null) this.listings.push({ ...question, addresses, points, reason: null });
  }

  #failed({ list }: Question, error: DnsError): void {
    switch (error.code) {
      case 'timeout':
      case 'aborted':
        this.#lacks(list, 'timeout', 'did not answer in time');
        break;
      case 'servfail':
      case 'refused':
        this.#lacks(list, 'failed', error.message);
        break;
      case 'badname':
        // Nobody can have such a name.
        this.#health.noted(list.name, 'unlisted');
        break;
    }
  }

  #lacks(
    { name }: BlockList,
    answer: 'skipped' | 'broken' | 'blocked' | 'timeout' | 'failed',
    why: string,
  ): void {
    this.#health.noted(name, answer);
    this.missing.set(name, why);
  }
}

function reasonOf(answer: DnsAnswer): string | null {
  if (answer.kind !== 'records') return null;
  const [text] = answer.records.flatMap((record) => (record.type === 'TXT' ? [record.text] : []));
  return text === undefined || text === '' ? null : printable(text, REASON_LIMIT);
}

/** The findings: one about the sum, and one about each list that did not count. */
function conclude(round: Round, options: Options): readonly Finding[] {
  const findings: Finding[] = [];
  const best = weightiest(round.listings);
  // Points have at most three decimals.
  const score = Math.round(best.reduce((sum, { points }) => sum + points, 0) * 1000) / 1000;
  const code = codeOf(score, best, options);
  if (code !== null) {
    const told = best.map(listingText).join(', ');
    const finding = { code, detail: `${told}; ${score} ${score === 1 ? 'point' : 'points'}` };
    const explanation = code === 'dnsbl.reject' ? explanationOf(best) : null;
    findings.push(explanation === null ? finding : { ...finding, explanation });
  }
  for (const [name, why] of round.missing)
    findings.push({ code: 'dnsbl.unavailable-list', detail: `${name} ${why}` });
  return findings;
}

/** Once for each list: by the subject that weighs most. */
function weightiest(listings: readonly Listing[]): readonly Listing[] {
  const best = new Map<string, Listing>();
  for (const listing of listings) {
    const other = best.get(listing.list.name);
    if (other === undefined || Math.abs(listing.points) > Math.abs(other.points))
      best.set(listing.list.name, listing);
  }
  return [...best.values()];
}

function codeOf(
  score: number,
  listings: readonly Listing[],
  { reject, greylist, welcome }: Options,
): string | null {
  if (reject !== false && score >= reject) return 'dnsbl.reject';
  if (greylist !== false && score >= greylist) return 'dnsbl.greylist';
  if (welcome !== false && score <= welcome) return 'dnsbl.welcome';
  return listings.some(({ points }) => points > 0) ? 'dnsbl.listed' : null;
}

function listingText({ list, about, addresses, points, reason }: Listing): string {
  const more = addresses.length > ANSWERS_SHOWN ? ` and ${addresses.length - ANSWERS_SHOWN} more` : '';
  const shown = `${addresses.slice(0, ANSWERS_SHOWN).join(' ')}${more}`;
  return `${about} on ${list.name} (${shown}: ${points}${reason === null ? '' : `, "${reason}"`})`;
}

function explanationOf(listings: readonly Listing[]): Explanation | null {
  for (const { list, reason, points } of listings) {
    if (reason !== null && points > 0) return { by: list.zone, text: reason };
  }
  return null;
}
