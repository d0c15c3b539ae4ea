import type { KeyKind } from '../adapters/key-maker.ts';
import { isDomainName } from '../config/values.ts';
import { RECORD_FORMS, type RecordForm } from '../mail/dkim-record.ts';
import { readArguments, UsageError } from './arguments.ts';

export const KEYS_HELP = `Usage: postern keys list [DOMAIN...] [--json]
       postern keys dns [DOMAIN...] [--selector NAME] [--form FORM]
       postern keys check [DOMAIN...] [--json]
       postern keys generate DOMAIN... [--algorithm rsa|ed25519] [--bits N] [--selector NAME]
       postern keys rotate [DOMAIN...] [--now] [--dry-run] [--quiet] [--form FORM]
       postern keys retire [DOMAIN...] [--selector NAME] [--now] [--dry-run] [--quiet]

Signing keys in the folder that signing.folder names, FOLDER/DOMAIN/SELECTOR.ROLE, and their records in DNS. Without a
DOMAIN: all of them. The name servers of each zone are asked themselves, every one of them.

list      The keys of each domain: "next" is prepared, "signs" signs, "old" stays published while mail that it signed may
          still be on its way, "retired" is deleted and waits for its record to be taken out of DNS.
dns       The records, ready to be published, of keys that are next or sign.
check     What each name server says about each key.
generate  Makes the next key of each kind in signing.new_keys. It does not sign yet.
rotate    Does what is due: makes the next key, signs with it when the time has come and all name servers have it, deletes
          old keys; and says which records are to be published or taken away. May run as often as you like, from cron too.
retire    Deletes old keys whose time is up, and says which records can go.

  --form FORM      ${RECORD_FORMS.join(', ')}: master file (BIND, NSD, Knot), name and value, tinydns-data, nsupdate(1)
  --now            rotate: signs with the next key as soon as it is published, whatever the age of the one that signs.
                   retire: deletes the named key, next or old, without waiting. Both need a DOMAIN
  --dry-run        says what would be done, and does nothing
  --quiet          prints nothing when there is nothing to do
  --config FILE    configuration file

Exit status: 0 all is well; 1 something is wrong or could not be done; 2 (rotate, retire) there is something for you to do;
75 name servers did not answer, nothing else is wrong; 64 wrong use; 78 configuration not usable.
`;

const COMMANDS = ['list', 'dns', 'check', 'generate', 'rotate', 'retire'] as const;

export interface KeysArguments {
  readonly command: (typeof COMMANDS)[number];
  /** Lower case; empty: all. */
  readonly domains: readonly string[];
  readonly selector: string | null;
  readonly kind: KeyKind | null;
  readonly bits: number | null;
  readonly form: RecordForm;
  readonly now: boolean;
  readonly dryRun: boolean;
  readonly quiet: boolean;
  readonly json: boolean;
  readonly config: string | null;
}

const OPTIONS = {
  selector: { type: 'string' },
  algorithm: { type: 'string' },
  bits: { type: 'string' },
  form: { type: 'string' },
  now: { type: 'boolean' },
  'dry-run': { type: 'boolean' },
  quiet: { type: 'boolean' },
  json: { type: 'boolean' },
  config: { type: 'string' },
} as const;

/** Options besides --config. */
const ALLOWED: Readonly<Record<(typeof COMMANDS)[number], readonly (keyof typeof OPTIONS)[]>> = {
  list: ['json'],
  dns: ['selector', 'form'],
  check: ['json'],
  generate: ['algorithm', 'bits', 'selector', 'form'],
  rotate: ['now', 'dry-run', 'quiet', 'form'],
  retire: ['selector', 'now', 'dry-run', 'quiet'],
};

const BITS = new Set(['2048', '3072', '4096']);

/** @throws {UsageError} */
export function parseKeys(args: readonly string[]): KeysArguments {
  const parsed = readArguments('keys', args, OPTIONS);
  const [word, ...names] = parsed.positionals;
  const command = COMMANDS.find((known) => known === word);
  if (command === undefined) throw usage(`which? There are ${COMMANDS.join(', ')}`);
  const { values } = parsed;
  for (const name of Object.keys(values)) {
    if (name !== 'config' && !ALLOWED[command].some((known) => known === name))
      throw usage(`--${name} is not for ${command}`);
  }
  const domains = [...new Set(names.map((name) => name.toLowerCase()))];
  for (const name of domains) if (!isDomainName(name)) throw usage(`"${name}" is no domain name`);
  const { selector = null, algorithm, bits, form = 'bind', now = false } = values;
  if (selector !== null && (selector.length > 63 || !isDomainName(selector)))
    throw usage(`"${selector}" is no selector`);
  if (algorithm !== undefined && algorithm !== 'rsa' && algorithm !== 'ed25519') {
    throw usage('--algorithm is rsa or ed25519');
  }
  if (bits !== undefined && !BITS.has(bits)) throw usage('--bits is 2048, 3072 or 4096');
  if (bits !== undefined && algorithm === 'ed25519') throw usage('--bits is for RSA');
  const recordForm = RECORD_FORMS.find((known) => known === form);
  if (recordForm === undefined) throw usage(`--form is one of ${RECORD_FORMS.join(', ')}`);
  if (domains.length === 0 && (command === 'generate' || now)) throw usage(`${command} of which domain?`);
  if (command === 'retire' && now && selector === null) throw usage('retire --now which --selector?');
  if (selector !== null && domains.length !== 1) throw usage('--selector goes with one domain');
  return {
    command,
    domains,
    selector,
    kind: algorithm ?? null,
    bits: bits === undefined ? null : Number(bits),
    form: recordForm,
    now,
    dryRun: values['dry-run'] ?? false,
    quiet: values.quiet ?? false,
    json: values.json ?? false,
    config: values.config ?? null,
  };
}

function usage(message: string): UsageError {
  return new UsageError(message, 'keys');
}
