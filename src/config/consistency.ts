import type { AnyBoundCheck, CheckDefinition } from '../checks/check.ts';
import { BANDS, type Thresholds } from '../verdict/rules.ts';
import { nearest, oneLine, oneOf, shown, type Problem } from './errors.ts';
import { keyPath } from './issues.ts';
import { loginNotes } from './logins.ts';
import { bandsOnto, overrideKey, thresholdsOnto } from './policy.ts';
import type { ConfigFile } from './schema.ts';
import { nodeAt, type TomlNode, type TomlTable } from './toml.ts';
import { formatSocketAddress, type SocketAddress } from './values.ts';

type Path = readonly PropertyKey[];

/** As many words are named when none is near. */
const LONGEST_LIST = 16;

/** What no single value shows: words that name something that is not there, and values that contradict each other. */
export class ConsistencyCheck {
  readonly problems: Problem[] = [];
  readonly notes: string[] = [];
  readonly #fileName: string;
  readonly #root: TomlTable;
  readonly #checks: readonly CheckDefinition[];
  #defaulted: ReadonlySet<string> = new Set();

  constructor(fileName: string, root: TomlTable, checks: readonly CheckDefinition[]) {
    this.#fileName = fileName;
    this.#root = root;
    this.#checks = checks;
  }

  /** Needs only the file's own words, so that it is made even when values are wrong. */
  names(): void {
    const codes = this.#checks.flatMap((check) => Object.keys(check.codes));
    const checks = this.#checks.map((check) => check.name);
    this.#known(['rules'], codes, 'no check finds this');
    this.#known(['unavailable'], checks, 'no such check');
    for (const list of ['override', 'policy']) {
      const entries = nodeAt(this.#root, [list]);
      if (entries?.kind !== 'list') continue;
      for (const index of entries.items.keys()) {
        this.#known([list, index, 'rules'], codes, 'no check finds this');
        this.#known([list, index, 'unavailable'], checks, 'no such check');
      }
    }
  }

  /** Codes that only the bound checks know: `limits.NAME`. */
  boundCodes(file: ConfigFile, bound: readonly AnyBoundCheck[]): void {
    const open = this.#checks.filter(({ openCodes }) => openCodes);
    const tables: readonly (readonly [Path, object])[] = [
      [['rules'], file.rules],
      ...file.override.map(({ rules }, index) => [['override', index, 'rules'], rules ?? {}] as const),
      ...file.policy.map(({ rules }, index) => [['policy', index, 'rules'], rules ?? {}] as const),
    ];
    for (const check of open) {
      const codes = Object.keys(bound.find(({ name }) => name === check.name)?.codes ?? check.codes);
      for (const [path, rules] of tables) {
        for (const word of Object.keys(rules)) {
          if (!word.startsWith(`${check.name}.`) || codes.includes(word)) continue;
          const near = nearest(word, codes);
          const expected =
            codes.length === 0 ? `there is nothing in [checks.${check.name}]` : `expected ${oneOf(codes)}`;
          this.#say(
            [...path, word],
            'key',
            'no check finds this',
            near === null ? expected : `did you mean "${near}"?`,
          );
        }
      }
    }
  }

  #policies(file: ConfigFile): void {
    const seen = new Map<string, Path>();
    const names = this.#checks.filter(({ partOf }) => partOf === undefined).map(({ name }) => name);
    for (const [index, { contexts, checks = [] }] of file.policy.entries()) {
      for (const [place, context] of contexts.entries()) {
        const path = ['policy', index, 'contexts', place];
        const earlier = seen.get(context);
        if (earlier === undefined) seen.set(context, path);
        else this.#twice(path, `"${context}"`, earlier);
      }
      for (const [place, name] of checks.entries()) {
        if (names.includes(name)) continue;
        const near = nearest(name, names);
        this.#say(
          ['policy', index, 'checks', place],
          'value',
          'no such check',
          near === null ? `expected one of ${oneOf(names)}` : `did you mean "${near}"?`,
        );
      }
    }
  }

  #known(path: Path, words: readonly string[], wrong: string): void {
    const table = nodeAt(this.#root, path);
    if (table?.kind !== 'table') return;
    for (const word of table.entries.keys()) {
      if (words.includes(word) || this.#isOpen(word)) continue;
      this.#say([...path, word], 'key', wrong, this.#meant(word, words));
    }
  }

  /** Whether only the bound checks can say if this is a code. */
  #isOpen(word: string): boolean {
    return this.#checks.some(({ name, openCodes }) => openCodes && word.startsWith(`${name}.`));
  }

  #meant(word: string, words: readonly string[]): string {
    const check = this.#checks.find(({ name }) => word === name || word.startsWith(`${name}.`));
    const near = word === check?.name ? null : nearest(word, words);
    if (near !== null) return `did you mean "${near}"?`;
    const few = check === undefined ? words : Object.keys(check.codes);
    return `expected ${few.length > LONGEST_LIST ? 'a code of docs/configuration.md' : oneOf(few)}`;
  }

  /** @param defaulted keys whose values were wrong: `file` has their defaults, which nobody wrote */
  values(file: ConfigFile, defaulted: ReadonlySet<string>): void {
    this.#defaulted = defaulted;
    this.#bands(['thresholds'], file.thresholds);
    const { outgoing } = file.thresholds;
    if (outgoing !== undefined) this.#bands(['thresholds', 'outgoing'], bandsOnto(file.thresholds, outgoing));
    this.#scanners(file);
    this.#overrides(file);
    this.#policies(file);
    this.#sockets(file);
    this.#keys(file);
    this.#times(file);
    this.#dovecot(file);
    this.#filing(file);
    this.#needs(file);
    this.#logins(file);
    for (const daemon of ['milter', 'lmtp-filter'] as const) {
      const { memory_per_message: memory, max_message_size: largest } = file[daemon];
      // The default is no mistake: such messages just never need a spool file.
      if (memory > largest && this.#written([daemon, 'memory_per_message'])) {
        const wrong = 'more than max_message_size allows a message to have';
        this.#say([daemon, 'memory_per_message'], 'value', wrong, 'expected no more than max_message_size');
      }
    }
    if (!file.site.hostname.includes('.')) {
      const where = this.#written(['site', 'hostname']) ? 'site.hostname' : "the system's host name";
      this.notes.push(
        `${where} is "${file.site.hostname}", without a domain; set site.hostname to the name in DNS`,
      );
    }
  }

  /** tag ≤ junk ≤ reject: a message that is refused is not milder than one that is marked. */
  #bands(path: Path, thresholds: Thresholds): void {
    if (
      [...this.#defaulted].some((key) => key.startsWith('thresholds.') || key.startsWith(`${keyPath(path)}.`))
    )
      return;
    const used = BANDS.flatMap((band) => {
      const points = thresholds[band];
      return points === null ? [] : [{ band, points }];
    });
    for (const [index, { band: higher, points: high }] of used.entries()) {
      const below = used[index - 1];
      if (below === undefined || below.points <= high) continue;
      const { band: lower, points: low } = below;
      const written = this.#written([...path, higher]);
      // What an override takes over from the site or the domain is named there.
      if (!written && !this.#written([...path, lower])) continue;
      const key = written ? higher : lower;
      const wrong = written
        ? `${higher} at ${high} points is below ${lower} at ${low} points`
        : `${lower} at ${low} points is above ${higher} at ${high} points`;
      const remedy = written ? `expected ${low} or more, or a lower ${lower}` : `expected ${high} or less`;
      this.#say([...path, key], 'value', wrong, remedy);
    }
  }

  #overrides(file: ConfigFile): void {
    const seen = new Map<string, Path>();
    const bands = new Map<string, Thresholds>();
    for (const [index, override] of file.override.entries()) {
      const { recipients, thresholds, rules, unavailable, subject_tag: tag } = override;
      if (thresholds === undefined && rules === undefined && unavailable === undefined && tag === undefined) {
        this.notes.push(
          `override[${index + 1}] changes nothing: it has neither thresholds, rules, unavailable nor subject_tag`,
        );
      }
      for (const [place, recipient] of recipients.entries()) {
        const path = ['override', index, 'recipients', place];
        const key = overrideKey(recipient, file);
        const earlier = seen.get(key);
        if (earlier === undefined) seen.set(key, path);
        else this.#twice(path, `"${key}"`, earlier);
        if (key.startsWith('@')) bands.set(key, thresholdsOnto(file.thresholds, override));
      }
    }
    for (const [index, override] of file.override.entries()) {
      const told = new Set<string>();
      for (const recipient of override.recipients) {
        const key = overrideKey(recipient, file);
        const domain = bands.get(key.slice(key.lastIndexOf('@')));
        const base = key.startsWith('@') || domain === undefined ? file.thresholds : domain;
        const merged = thresholdsOnto(base, override);
        const signature = JSON.stringify(merged);
        if (override.thresholds === undefined || told.has(signature)) continue;
        told.add(signature);
        this.#bands(['override', index, 'thresholds'], merged);
      }
    }
  }

  #twice(path: Path, what: string, earlier: Path): void {
    const line = nodeAt(this.#root, earlier)?.at.line;
    this.#say(path, 'value', `${what} is here a second time`, `remove it here or on line ${line ?? 0}`);
  }

  #sockets(file: ConfigFile): void {
    const taken: { readonly path: Path; readonly address: SocketAddress }[] = [];
    const logins = file.logins.enabled ? (['logins'] as const) : [];
    for (const section of ['policyd', ...logins, 'milter', 'lmtp-filter', 'admin'] as const) {
      const mine = { path: [section, 'listen'], address: file[section].listen };
      if (this.#defaulted.has(keyPath(mine.path))) continue;
      const other = taken.find(({ address }) => collide(address, mine.address));
      if (other !== undefined) {
        // The default of one can be in the way of what the file says of the other; the place is where the file says something.
        const [here, there] = this.#written(mine.path) ? [mine, other] : [other, mine];
        const wrong = `${keyPath(there.path)} listens on ${formatSocketAddress(there.address)} already`;
        this.#say(here.path, 'value', wrong, 'expected an address of its own');
      }
      taken.push(mine);
    }
    const { listen, upstream } = file['lmtp-filter'];
    if (this.#defaulted.has('lmtp-filter.upstream')) return;
    for (const target of upstream) {
      const loop = taken.find(({ address }) => collide(address, target));
      if (loop === undefined) continue;
      const own = collide(listen, target);
      const path = this.#written(['lmtp-filter', 'upstream']) ? ['lmtp-filter', 'upstream'] : loop.path;
      const wrong = `mail would be delivered to ${own ? 'the filter itself' : keyPath(loop.path)}`;
      this.#say(path, 'value', wrong, "expected the address of Dovecot's LMTP listener");
    }
  }

  #keys(file: ConfigFile): void {
    const seen = new Map<string, Path>();
    for (const [index, { domain, selector }] of file.signing.key.entries()) {
      const name = `${selector}._domainkey.${domain}`.toLowerCase();
      const path = ['signing', 'key', index, 'selector'];
      const earlier = seen.get(name);
      if (earlier === undefined) seen.set(name, path);
      else this.#twice(path, `the key ${name}`, earlier);
    }
    // What the folder holds is known when it is opened.
    if (file.signing.folder === undefined) this.#namedKeys(file, new Set(seen.keys()));
    if (file.signing.table_only && file.signing.table.length === 0) {
      this.notes.push('signing.table_only: there is no [[signing.table]], so nothing is signed');
    }
    this.#sealing(file);
  }

  /** Keys that the signing table and [arc] name, and that are in no file. */
  #namedKeys({ signing, arc }: ConfigFile, names: ReadonlySet<string>): void {
    const domains = new Set(signing.key.map(({ domain }) => domain.toLowerCase()));
    const isThere = (domain: string, selector: string | null): boolean =>
      selector === null ? domains.has(domain) : names.has(`${selector}._domainkey.${domain}`.toLowerCase());
    const remedy = 'add it as [[signing.key]], or set signing.folder';
    for (const [index, { keys }] of signing.table.entries()) {
      for (const [place, { domain, selector }] of keys.entries()) {
        if (isThere(domain, selector)) continue;
        this.#say(['signing', 'table', index, 'keys', place], 'value', 'there is no such key', remedy);
      }
    }
    if (arc.domain === undefined || isThere(arc.domain.toLowerCase(), arc.selector ?? null)) return;
    const wrong = arc.selector === undefined ? 'there is no key of this domain' : 'there is no such key';
    this.#say(['arc', arc.selector === undefined ? 'domain' : 'selector'], 'value', wrong, remedy);
  }

  #sealing({ arc, directory }: ConfigFile): void {
    if (arc.domain === undefined) {
      if (arc.selector !== undefined)
        this.#say(['arc', 'selector'], 'value', 'without a domain', 'add domain = "…" to [arc]');
      return;
    }
    if (arc.seal !== 'forwarded') return;
    const { mailbox_domains, alias_domains, mailboxes, aliases } = directory;
    if (asksDatabase(directory)) return;
    if ([mailbox_domains, alias_domains, mailboxes, aliases].some((list) => list.length > 0)) return;
    const wrong = 'what is forwarded is not known without [directory]';
    const key = ['arc', this.#written(['arc', 'seal']) ? 'seal' : 'domain'];
    this.#say(
      key,
      'value',
      wrong,
      'set directory.mailbox_domains and directory.aliases, or arc.seal = "incoming"',
    );
  }

  /** Postfix stops waiting after a time of its own; past that an answer of ours reaches nobody. */
  #times(file: ConfigFile): void {
    const lmtp = file['lmtp-filter'];
    const waits = [
      ['policyd.deadline', file.policyd.deadline, 100_000, 'smtpd_policy_service_timeout'],
      ['milter.deadline', file.milter.deadline, 300_000, 'milter_content_timeout'],
      [
        'lmtp-filter.deadline and upstream_timeout',
        lmtp.deadline + lmtp.upstream_timeout,
        600_000,
        'lmtp_data_done_timeout',
      ],
    ] as const;
    for (const [what, ours, theirs, parameter] of waits) {
      if (ours < theirs) continue;
      this.notes.push(
        `${what}: ${ours / 1000} s is not less than Postfix's ${parameter} (usually ${theirs / 1000} s); raise that one too`,
      );
    }
  }

  #scanners({ spamd, rspamd }: ConfigFile): void {
    if (!rspamd.enabled || spamd.enabled !== true) return;
    const wrong = 'spamd.enabled is true, and only one of them can give the score';
    this.#say(['rspamd', 'enabled'], 'value', wrong, 'expected false here or there');
  }

  #logins({ logins }: ConfigFile): void {
    if (!logins.enabled) return;
    if (logins.listen.kind === 'tcp' && logins.api_key_file === undefined) {
      const key = ['logins', this.#written(['logins', 'listen']) ? 'listen' : 'enabled'];
      const wrong = 'whoever reaches this TCP port could ask about logins, and make them fail';
      if (!this.#defaulted.has('logins.api_key_file'))
        this.#say(key, 'value', wrong, 'expected logins.api_key_file, or a unix socket');
    }
    this.notes.push(...loginNotes(logins));
  }

  #dovecot({ dovecot, directory }: ConfigFile): void {
    if (dovecot.doveadm !== undefined && dovecot.api_key_file === undefined) {
      const wrong = 'doveadm can not be asked without its key';
      this.#say(['dovecot', 'doveadm'], 'value', wrong, 'add api_key_file = "…" to [dovecot]');
    }
    const asked = dovecot.doveadm !== undefined || dovecot.quota_clone.address !== undefined;
    if (directory.userdb && dovecot.doveadm === undefined) {
      const wrong = 'the user database of Dovecot is asked through doveadm';
      this.#say(['directory', 'userdb'], 'value', wrong, 'add doveadm = "…" to [dovecot]');
    }
    if (asksDatabase(directory)) return;
    if (asked && directory.mailbox_domains.length === 0 && directory.mailboxes.length === 0) {
      this.notes.push(
        '[dovecot] says whom to ask about quotas, and [directory] names no mailboxes to ask about: set directory.mailbox_domains',
      );
    }
  }

  /** The folder's name goes into addresses. */
  #filing({ 'lmtp-filter': { filing }, feedback: { junk }, site }: ConfigFile): void {
    const path = ['lmtp-filter', 'filing'];
    if (filing === 'header' || this.#defaulted.has(keyPath(path))) return;
    if (site.recipient_delimiter === '') {
      const wrong = 'there is no address extension that could name a folder';
      this.#say(path, 'value', wrong, 'set site.recipient_delimiter, or filing = "header"');
    } else if (!/^[!-~]{1,64}$/.test(junk)) {
      const wrong = `the folder ${shown(junk)} can't be named in an address`;
      this.#say(path, 'value', wrong, 'expected feedback.junk of ASCII without spaces, or filing = "header"');
    }
  }

  #needs(file: ConfigFile): void {
    const enabled = (name: string): boolean => isEnabled(file.checks[name]);
    for (const check of this.#checks) {
      if (check.needsLittle === true || !enabled(check.partOf ?? check.name)) continue;
      for (const need of check.needs) {
        if (!enabled(need))
          this.notes.push(`checks.${check.name} is on without checks.${need}, on whose findings it builds`);
      }
    }
  }

  #written(path: Path): boolean {
    return nodeAt(this.#root, path) !== undefined;
  }

  #say(path: Path, place: 'key' | 'value', wrong: string, remedy: string): void {
    const node = nodeAt(this.#root, path);
    const position = (place === 'key' ? node?.keyAt : node?.at) ?? null;
    this.problems.push({ file: this.#fileName, position, key: keyPath(path), wrong, remedy });
  }
}

/** Whether the table of a check, as the schema has read it, says that the check is made. */
export function isEnabled(table: unknown): table is { readonly enabled: true; readonly deadline: number } {
  return typeof table === 'object' && table !== null && 'enabled' in table && table.enabled === true;
}

/** Whether a database or LDAP tells whose mailboxes there are. */
function asksDatabase({ sql, ldap }: ConfigFile['directory']): boolean {
  return sql.address !== undefined || sql.file !== undefined || ldap.address !== undefined;
}

const ANY_HOST = new Set(['0.0.0.0', '::']);

/** Whether two sockets can't be open at once. Port 0 takes a free one each time. */
function collide(one: SocketAddress, other: SocketAddress): boolean {
  if (one.kind === 'unix' || other.kind === 'unix') {
    return one.kind === 'unix' && other.kind === 'unix' && one.path === other.path;
  }
  if (one.port !== other.port || one.port === 0) return false;
  const [host, otherHost] = [hostOf(one.host), hostOf(other.host)];
  return host === otherHost || ANY_HOST.has(host) || ANY_HOST.has(otherHost);
}

function hostOf(host: string): string {
  return host.toLowerCase() === 'localhost' ? '127.0.0.1' : host.toLowerCase();
}

/** Control characters anywhere in a text: a field of a message or a reply is made of some of these. */
export function controlCharacters(fileName: string, root: TomlTable): Problem[] {
  const problems: Problem[] = [];
  const visit = (node: TomlNode, path: Path): void => {
    switch (node.kind) {
      case 'scalar': {
        const found = typeof node.value === 'string' ? /\p{Cc}/u.exec(node.value)?.[0] : undefined;
        if (found === undefined) break;
        const wrong = `the text holds the control character ${oneLine(found)}`;
        const remedy = 'expected text on one line';
        problems.push({ file: fileName, position: node.at, key: keyPath(path), wrong, remedy });
        break;
      }
      case 'list':
        for (const [index, item] of node.items.entries()) visit(item, [...path, index]);
        break;
      case 'table':
        for (const [name, entry] of node.entries) visit(entry, [...path, name]);
        break;
    }
  };
  visit(root, []);
  return problems;
}
