import { authors } from '../mail/author.ts';
import type { Finding } from '../verdict/finding.ts';
import { messageCheck } from './check.ts';
import { mayUse, SENDER_OPTIONS } from './sender-ownership.ts';

/** Addresses of From that are looked at; more than that is nobody's From. */
export const AUTHORS_LIMIT = 100;

/** What the reader sees as the author of a login's mail, by the same table as the envelope sender. */
export const authorCheck = messageCheck({
  name: 'author',
  stage: 'message',
  partOf: 'sender',
  summary: 'Whether the addresses in From are ones that the login may use, by the table of [checks.sender].',
  directions: ['out'],
  needs: [],
  codes: {
    'author.not-owned': {
      meaning:
        'An address in the From field of a message with a login is not one that the login may send as, or the field is there twice or can not be read.',
      action: 'reject',
    },
  },
  unavailable: 'defer',
  deadline: '2s',
  optIn: true,
  headersOnly: true,
  options: SENDER_OPTIONS,
  async run({ facts, tools, options, signal }) {
    const { login } = facts.client;
    if (login === null) return [];
    const { headers } = facts.message;
    // A message without one names nobody; what Postfix puts there itself is the envelope sender.
    if (headers.first('From') === undefined) return [];
    const named = authors(headers);
    if (named === null) return [notOwned(`From of login ${login} is there twice or can't be read`)];
    if (named.length === 0) return [notOwned(`From of login ${login} names no address`)];
    if (named.length > AUTHORS_LIMIT)
      return [notOwned(`From of login ${login} names ${named.length} addresses, more than ${AUTHORS_LIMIT}`)];
    for (const address of named) {
      if (!(await mayUse(login, address, options, tools, signal)))
        return [notOwned(`login ${login} may not send as ${address.raw} (From)`)];
    }
    return [];
  },
});

function notOwned(detail: string): Finding {
  return { code: 'author.not-owned', detail };
}
