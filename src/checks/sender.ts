import type { Address } from '../mail/address.ts';
import type { Finding } from '../verdict/finding.ts';
import { mailCheck, type CheckTools } from './check.ts';
import { mayUse, SENDER_OPTIONS } from './sender-ownership.ts';
import { after, type Soon } from './soon.ts';

/** Whether the sender address is the client's to use: a login's own, and none of ours without a login. */
export const senderCheck = mailCheck({
  name: 'sender',
  stage: 'mail',
  summary:
    'Which sender addresses a login may use: its own, aliases that lead to its mailbox, and those that are allowed to it. Covers the envelope sender here, and From through the check "author". Off until it is enabled, because logins may have sent as other addresses for years.',
  directions: ['in', 'out'],
  needs: [],
  codes: {
    'sender.not-owned': { meaning: 'The login may not send as the envelope sender.', action: 'reject' },
    'sender.null': {
      meaning:
        'Mail with a login and without a sender. Usual for read receipts (RFC 8098 §3), and for spam from stolen accounts.',
      action: 'ignore',
    },
    'sender.own-domain': {
      meaning:
        'Incoming mail without a login whose envelope sender is in a domain of ours. Also mail of ours that somebody outside forwards, and of services that send in our name.',
      action: 'ignore',
    },
  },
  unavailable: 'defer',
  deadline: '2s',
  policyOnly: true,
  optIn: true,
  options: SENDER_OPTIONS,
  run({ facts, tools, options, signal }) {
    const { client, direction, sender } = facts;
    const { login } = client;
    if (login === null) {
      if (direction === 'out' || sender.kind === 'null') return [];
      return foreign(sender.address, tools, signal);
    }
    if (sender.kind === 'null')
      return [{ code: 'sender.null', detail: `login ${login} sends mail without a sender` }];
    const { address } = sender;
    return after(mayUse(login, address, options, tools, signal), (may): readonly Finding[] =>
      may ? [] : [{ code: 'sender.not-owned', detail: `login ${login} may not send as ${address.raw}` }],
    );
  },
});

function foreign(
  { raw, domain }: Address,
  { directory }: CheckTools,
  signal: AbortSignal,
): Soon<readonly Finding[]> {
  if (domain === '') return [];
  return after(directory.isLocalDomain(domain, signal), (ours): readonly Finding[] =>
    ours ? [{ code: 'sender.own-domain', detail: `${raw} from outside, without a login` }] : [],
  );
}
