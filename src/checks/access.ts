import { z } from 'zod';

import type { RcptFacts } from './check.ts';
import { rcptCheck, type CodeInfo } from './check.ts';
import type { Finding } from '../verdict/finding.ts';
import { AccessTable } from './access-table.ts';
import { isIpAddress, parseNetwork } from './networks.ts';

/** Entries in the list; values in one list of an entry; patterns with `*` elsewhere than in front, which are tried one by one. */
const ENTRY_LIMIT = 100_000;
const VALUE_LIMIT = 100_000;
export const SLOW_LIMIT = 1000;

const NETWORK_FORM = 'expected an IP address or a network such as "192.0.2.0/24" or "2001:db8::/32"';
const NAME_FORM =
  'expected a host name such as "mail.example.org" or, with "*", a pattern such as "*.example.org"';
const SENDER_FORM =
  'expected "user@example.org", "@example.org", "@*.example.org", another pattern with "*", or "<>" for bounces';
const LOGIN_FORM = 'expected a login, or a pattern with "*"';
const RECIPIENT_FORM = 'expected "user@example.org" or "@example.org"';
const CODE_NAME_FORM = 'expected a word of lower-case letters, digits and hyphens, such as "old-partner"';
const TEXT_FORM = 'expected 1 to 200 printable ASCII characters on one line';

function isAddress(text: string): boolean {
  return isIpAddress(text.replace(/^\[(?:ipv6:)?(.*)\]$/i, '$1'));
}

function values(form: string, valid: (text: string) => boolean): z.ZodDefault<z.ZodArray<z.ZodString>> {
  const value = z.string(form).refine(valid, form);
  return z.array(value, `expected a list: ${form}`).max(VALUE_LIMIT).default([]);
}

const entry = z.strictObject({
  action: z
    .enum(['allow', 'deny'])
    .describe(
      '"allow": the rule "allow", which sets aside what the other checks say about who the client is. "deny": the rule "reject". [rules] can say otherwise for the code.',
    )
    .meta({ examples: ['deny'] }),
  name: z
    .string(CODE_NAME_FORM)
    .regex(/^[a-z0-9][a-z0-9-]{0,39}$/, CODE_NAME_FORM)
    .refine(
      (name) => name !== 'allow' && name !== 'deny',
      '"allow" and "deny" are the codes of entries without a name',
    )
    .optional()
    .describe(
      'Gives the entry a code of its own, access.NAME, for [rules], overrides and the record. Several may share one.',
    )
    .meta({ examples: ['old-partner'], defaultText: 'access.allow or access.deny' }),
  client: values(NETWORK_FORM, (text) => parseNetwork(text) !== null)
    .describe('Address of the client: networks.')
    .meta({ title: 'list of networks', examples: [['192.0.2.0/24', '2001:db8::/32']] }),
  client_name: values(NAME_FORM, (text) => /^[\w.*-]{1,255}$/.test(text))
    .describe(
      'Host name of the client by its PTR record: "mail.example.org", "*.example.org" for all names below. For "allow" only a name that leads back to the address counts; for "deny" one that does not, too.',
    )
    .meta({ title: 'list of names', examples: [['*.example.org']] }),
  helo: values(NAME_FORM, (text) => /^[\w.*-]{1,255}$/.test(text) || isAddress(text))
    .describe('HELO name, which a client can choose at will: names and patterns as in client_name.')
    .meta({ title: 'list of names', examples: [['*.example.org']] }),
  sender: values(
    SENDER_FORM,
    (text) =>
      text === '<>' ||
      /^(?=.{2,320}$)[!-~]*@[\w.*-]+$/.test(text) ||
      /^[!-~]{0,318}\*[!-~]{0,318}$/.test(text),
  )
    .describe(
      'Envelope sender, which a client can choose at will: "user@example.org" (with any address extension), "@example.org", "@*.example.org" for all domains below, patterns with "*", "<>" for bounces. To allow a sender, name its clients too.',
    )
    .meta({ title: 'list of senders', examples: [['@example.org', 'news*@*.example.net']] }),
  login: values(LOGIN_FORM, (text) => /^[!-~]{1,320}$/.test(text))
    .describe('SASL login; upper case makes no difference.')
    .meta({ title: 'list of logins', examples: [['zeus@example.org']] }),
  recipients: values(RECIPIENT_FORM, (text) => /^(?=.{2,320}$)[!-)+-~]*@[\w.-]+$/.test(text))
    .describe('Only for these recipients: "user@example.org" or "@example.org".')
    .meta({ title: 'list of recipients', examples: [['@example.org']], defaultText: 'everybody' }),
  text: z
    .string(TEXT_FORM)
    .regex(/^[\x20-\x7e]{1,200}$/, TEXT_FORM)
    .optional()
    .describe('Words of the refusal, in place of ours. Needs a name.')
    .meta({ examples: ['Please write to sales@example.org'], defaultText: 'Access denied' }),
  shadow: z
    .boolean()
    .default(false)
    .describe('Found, recorded and counted, and never acted on; the list goes on below it. Needs a name.'),
});

type Entry = z.output<typeof entry>;

const CONDITIONS = ['client', 'client_name', 'helo', 'sender', 'login', 'recipients'] as const;

/** Who is welcome and who is not, whatever else is known of them. The operator's own list. */
export const accessCheck = rcptCheck({
  name: 'access',
  stage: 'rcpt',
  summary:
    "The operator's list of clients, senders and logins that are allowed or denied: of all entries the first that matches counts.",
  directions: ['in', 'out'],
  needs: [],
  codes: {
    'access.allow': { meaning: 'An entry without a name allows it.', action: 'allow' },
    'access.deny': { meaning: 'An entry without a name denies it.', action: 'reject' },
  },
  codesOf: ({ entry: { entries } }) => {
    const codes: Record<string, CodeInfo> = {};
    for (const { name, action, text, shadow } of entries) {
      if (name === undefined) continue;
      codes[`access.${name}`] = {
        meaning: `An entry with the name "${name}" ${action === 'allow' ? 'allows' : 'denies'} it.`,
        action: action === 'allow' ? 'allow' : 'reject',
        ...(shadow ? { shadow } : {}),
        ...(text === undefined ? {} : { text }),
      };
    }
    return codes;
  },
  unavailable: 'ignore',
  deadline: '1s',
  options: {
    entry: z
      .array(entry)
      .max(ENTRY_LIMIT)
      .transform((entries, context) => {
        const problems = contradictions(entries);
        for (const { index, key, message } of problems)
          context.addIssue({ code: 'custom', message, path: [index, key] });
        if (problems.length > 0) return z.NEVER;
        const table = new AccessTable(entries);
        if (table.slow <= SLOW_LIMIT) return table;
        const message = `expected at most ${SLOW_LIMIT} patterns with "*" elsewhere than in front ("*.example.org", "@*.example.org")`;
        context.addIssue({ code: 'custom', message });
        return z.NEVER;
      })
      .prefault([])
      .describe(
        'An entry. What it says of several kinds (client and sender, say) all has to be so; of one kind, one value. The first entry that matches counts.',
      ),
  },
  run({ facts, tools, options }) {
    const { entry: table } = options;
    if (table.entries.length === 0) return NOTHING;
    return table.find(facts, tools.delimiter, isAllowing, isInForce).map((found) => finding(found, facts));
  },
});

const NOTHING: readonly Finding[] = [];

function isAllowing({ action }: Entry): boolean {
  return action === 'allow';
}

function isInForce({ shadow }: Entry): boolean {
  return !shadow;
}

function finding({ name, action, ...given }: Entry, { client, sender, recipient }: RcptFacts): Finding {
  const what = {
    client: client.address,
    client_name: client.name ?? client.reverseName ?? '',
    helo: client.helo ?? '',
    sender: sender.kind === 'null' ? '<>' : sender.address.raw,
    login: client.login ?? '',
    recipients: recipient.raw,
  };
  const kinds = CONDITIONS.filter((kind) => given[kind].length > 0);
  const seen = kinds.map((kind) => `${kind} ${what[kind]}`).join(', ');
  return {
    code: `access.${name ?? action}`,
    detail: `${action === 'allow' ? 'allowed' : 'denied'}: ${seen}`,
  };
}

interface Contradiction {
  readonly index: number;
  readonly key: keyof Entry;
  readonly message: string;
}

function contradictions(entries: readonly Entry[]): Contradiction[] {
  const problems: Contradiction[] = [];
  const named = new Map<string, Entry>();
  for (const [index, one] of entries.entries()) {
    if (CONDITIONS.every((kind) => one[kind].length === 0))
      problems.push({ index, key: 'action', message: `expected one of ${CONDITIONS.join(', ')} beside it` });
    if (one.name === undefined) {
      for (const key of ['text', 'shadow'] as const)
        if (one[key] !== undefined && one[key] !== false)
          problems.push({ index, key, message: 'expected a name beside it' });
      continue;
    }
    const other = named.get(one.name) ?? one;
    named.set(one.name, other);
    for (const key of ['action', 'text', 'shadow'] as const)
      if (one[key] !== other[key])
        problems.push({
          index,
          key,
          message: `expected the same as in the other entries with the name "${one.name}"`,
        });
  }
  return problems;
}
