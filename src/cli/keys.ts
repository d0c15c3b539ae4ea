import type { Config } from '../config/config.ts';
import { systemClock } from './clock.ts';
import { readConfig } from './config-file.ts';
import { EXIT } from './arguments.ts';
import { KEYS_HELP, parseKeys, type KeysArguments } from './keys-arguments.ts';
import { retiresAt } from './keys-plan.ts';
import { generate, retire, rotate } from './keys-rotate.ts';
import { domainsOf, Surveyor, viewDomain, type Publications, type ViewedKey } from './keys-view.ts';
import { keyJson, keyLine, publicationWords, recordOf, serverLines } from './keys-words.ts';

/** `postern keys` */
export async function keys(args: readonly string[]): Promise<number> {
  if (args.includes('--help') || args.includes('-h')) {
    process.stdout.write(KEYS_HELP);
    return EXIT.ok;
  }
  const wanted = parseKeys(args);
  const loaded = await readConfig(wanted.config);
  if (loaded === null) return EXIT.config;
  const { config } = loaded;
  try {
    const changes = wanted.command === 'rotate' || wanted.command === 'retire';
    const domains = await domainsOf(config, wanted.domains, !changes);
    switch (wanted.command) {
      case 'list':
        return await list(config, domains, wanted);
      case 'dns':
        return await dns(config, domains, wanted);
      case 'check':
        return await check(config, domains, wanted);
      case 'generate':
        return await generate(config, domains, wanted);
      case 'rotate':
        return await rotate(config, domains, wanted);
      case 'retire':
        return await retire(config, domains, wanted);
    }
  } catch (error) {
    process.stderr.write(`postern: ${error instanceof Error ? error.message : String(error)}\n`);
    return EXIT.failed;
  }
}

async function list(config: Config, domains: readonly string[], { json }: KeysArguments): Promise<number> {
  let status: number = EXIT.ok;
  for (const name of domains) {
    const { domain, keys: found } = await viewDomain(config, name);
    if (!json) process.stdout.write(`${domain}\n`);
    if (!json && found.length === 0) process.stdout.write('  no keys\n');
    for (const key of found) {
      process.stdout.write(`${json ? keyJson(key) : keyLine(key)}\n`);
      if (tellBroken(key)) status = EXIT.failed;
    }
  }
  return status;
}

async function dns(
  config: Config,
  domains: readonly string[],
  { selector, form }: KeysArguments,
): Promise<number> {
  let status: number = EXIT.ok;
  let told = 0;
  for (const name of domains) {
    for (const key of (await viewDomain(config, name)).keys) {
      const meant =
        selector === null ? key.role === 'next' || key.role === 'private' : key.selector === selector;
      if (!meant) continue;
      if (tellBroken(key)) {
        status = EXIT.failed;
        continue;
      }
      told++;
      process.stdout.write(recordOf(key, form));
    }
  }
  if (told === 0 && status === EXIT.ok) {
    process.stderr.write('postern: there is no such key; "postern keys generate DOMAIN" makes one\n');
    return EXIT.failed;
  }
  return status;
}

async function check(config: Config, domains: readonly string[], { json }: KeysArguments): Promise<number> {
  await using surveyor = await Surveyor.open(config);
  let [wrong, unknown] = [false, false];
  for (const name of domains) {
    const view = await viewDomain(config, name);
    const publications = await surveyor.publications(view);
    if (!json) process.stdout.write(`${view.domain}\n`);
    for (const key of view.keys) {
      wrong = tellBroken(key) || wrong;
      const publication = publications.get(key);
      if (json) process.stdout.write(`${keyJson(key, publication)}\n`);
      else if (publication === undefined) process.stdout.write(`${keyLine(key)}\n`);
      else
        process.stdout.write(
          `${keyLine(key)}  ${publicationWords(publication)}\n${serverLines(publication)}`,
        );
      const state = publication === undefined ? 'right' : judged(key, publication, config);
      wrong ||= state === 'wrong';
      unknown ||= state === 'unknown';
    }
  }
  return wrong ? EXIT.failed : unknown ? EXIT.unknown : EXIT.ok;
}

type Judged = 'right' | 'wrong' | 'unknown';

/** Whether a key is as it should be in DNS. */
export function judged(
  key: Pick<ViewedKey, 'role' | 'since'>,
  publication: NonNullable<ReturnType<Publications['get']>>,
  { file: { signing } }: Pick<Config, 'file'>,
): Judged {
  const kinds = new Set(publication.servers.map(({ standing }) => standing.kind));
  const lacking =
    kinds.has('missing') || kinds.has('revoked') || kinds.has('mismatch') || kinds.has('malformed');
  switch (key.role) {
    case 'private':
      return lacking ? 'wrong' : publication.state === 'everywhere' ? 'right' : 'unknown';
    case 'old':
      if (systemClock.now() >= retiresAt(key, signing.queue_lifetime)) return 'right';
      return lacking ? 'wrong' : publication.state === 'everywhere' ? 'right' : 'unknown';
    // Not there yet is no mistake; a record with a slip of the pen in it is.
    case 'next':
      return kinds.has('mismatch') || kinds.has('malformed') || kinds.has('revoked') ? 'wrong' : 'right';
    case 'retired':
      return 'right';
  }
}

function tellBroken({ content }: ViewedKey): boolean {
  if (content.ok) return false;
  process.stderr.write(`postern: ${content.why}\n`);
  return true;
}
