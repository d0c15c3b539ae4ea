import { mailCheck } from './check.ts';
import { isMadeFromAddress } from './generic-name.ts';
import { nameList, type NameTable } from './names.ts';
import { parseIp } from './networks.ts';

const PATTERN_FORM = 'expected a host name, or a pattern such as "*.dyn.example.net" or "*dialup*"';
/** Whether the address of the client has a name in the DNS, and what kind of name. Postfix has looked it up already. */
export const ptrCheck = mailCheck({
  name: 'ptr',
  stage: 'mail',
  policyOnly: true,
  waivable: true,
  summary:
    "The client's name by its PTR record, as Postfix tells it. Postfix can't tell a name that is missing from one that could not be looked up, so what is refused here is better deferred.",
  directions: ['in'],
  needs: [],
  codes: {
    'ptr.none': { meaning: 'The address of the client has no name (PTR).', action: 'ignore' },
    'ptr.unverified': {
      meaning: 'It has a name, which does not lead back to the address.',
      action: 'ignore',
    },
    'ptr.generic': {
      meaning:
        'The name was made from the address, as those of dial-up lines are, or matches one of the patterns.',
      action: 'ignore',
    },
  },
  unavailable: 'ignore',
  deadline: '1s',
  options: {
    generic_names: nameList(PATTERN_FORM)
      .prefault([])
      .describe('Further names that count as generic. "*" stands for any characters.')
      .meta({ examples: [['*.dyn.example.net', '*dialup*']], defaultText: 'none' }),
    named_hosts: nameList(PATTERN_FORM)
      .prefault([])
      .describe('Names that never count as generic, though they hold an address.')
      .meta({ examples: [['*.mailprovider.example']], defaultText: 'none' }),
  },
  run({ facts, options }) {
    const { client } = facts;
    const address = parseIp(client.address);
    // A client without an address (a unix socket) is no host.
    if (address === null) return [];
    if (client.reverseName === null && client.name === null)
      return [{ code: 'ptr.none', detail: `${client.address} has no name` }];
    const name = (client.name ?? client.reverseName ?? '').toLowerCase();
    const findings = [];
    if (client.name === null)
      findings.push({
        code: 'ptr.unverified',
        detail: `${client.address} is called ${name}, which does not lead back to it`,
      });
    if (isGeneric(name, address, options))
      findings.push({ code: 'ptr.generic', detail: `${client.address} is called ${name}, a generic name` });
    return findings;
  },
});

interface Patterns {
  readonly generic_names: NameTable<true>;
  readonly named_hosts: NameTable<true>;
}

function isGeneric(name: string, address: readonly number[], options: Patterns): boolean {
  if (options.named_hosts.has(name)) return false;
  return options.generic_names.has(name) || isMadeFromAddress(name, address);
}
