import type { AnyBoundCheck, CheckDefinition, CodeInfo } from '../checks/check.ts';
import { parseMailbox, settingsKey } from '../mail/address.ts';
import type { Direction } from '../mail/envelope.ts';
import {
  BANDS,
  type Band,
  type Policy,
  type Rule,
  type Rules,
  type Setting,
  type Thresholds,
} from '../verdict/rules.ts';
import type { ConfigFile } from './schema.ts';

type Override = ConfigFile['override'][number];

/** What `[[policy]]` changes. */
export type ContextPolicy = ConfigFile['policy'][number];

/**
 * The rules of the site, and those of each domain and user that has its own: user onto domain, domain onto what one policy_context changes, that
 * onto the site.
 *
 * @param bound enabled checks, which may have codes of their own
 * @param direction of the mail that they are for
 */
export function mergePolicy(
  file: ConfigFile,
  checks: readonly CheckDefinition[],
  bound: readonly AnyBoundCheck[],
  context: ContextPolicy | null = null,
  direction: Direction = 'in',
): Policy {
  const findings = new Map<string, Rule>();
  const unavailable = new Map<string, Rule>();
  const copies = new Map<string, readonly string[]>();
  for (const { name, unavailable: kind } of checks)
    unavailable.set(name, { action: { kind }, mode: 'enforce' });
  for (const check of [...checks, ...bound]) {
    for (const [code, info] of Object.entries(check.codes)) {
      findings.set(code, ruleOf(info));
      if (info.copyTo !== undefined && info.copyTo.length > 0) copies.set(code, info.copyTo);
    }
  }
  const site: Rules = {
    findings: withRules(withRules(findings, file.rules), context?.rules ?? {}),
    unavailable: withRules(withRules(unavailable, file.unavailable), context?.unavailable ?? {}),
    waivable: new Set(checks.filter((check) => check.waivable === true).map(({ name }) => name)),
    ...(copies.size === 0 ? {} : { copies }),
    thresholds: siteThresholds(file, direction),
    subjectTag: file.subject_tag,
  };
  const overrides = new Map<string, Rules>();
  const entries = file.override.flatMap((override) =>
    override.recipients.map((recipient) => ({ key: overrideKey(recipient, file), override })),
  );
  for (const { key, override } of entries) {
    if (key.startsWith('@')) overrides.set(key, onto(site, override));
  }
  for (const { key, override } of entries) {
    if (key.startsWith('@')) continue;
    const base = overrides.get(key.slice(key.lastIndexOf('@'))) ?? site;
    overrides.set(key, { ...onto(base, override), ...pinnedBy(override) });
  }
  return { site, overrides, delimiter: file.site.recipient_delimiter };
}

function siteThresholds({ thresholds }: ConfigFile, direction: Direction): Thresholds {
  const { tag, junk, reject, discard, outgoing } = thresholds;
  const incoming = { tag, junk, reject, discard };
  return direction === 'in' ? incoming : bandsOnto(incoming, outgoing);
}

function ruleOf({ action, shadow, text }: CodeInfo): Rule {
  return {
    action: { kind: action },
    mode: shadow === true ? 'shadow' : 'enforce',
    ...(text === undefined ? {} : { text }),
  };
}

/** The key of Policy.overrides: lower case, without address extension. */
export function overrideKey(recipient: string, file: ConfigFile): string {
  const mailbox = parseMailbox(recipient);
  return mailbox.local === '' ? `@${mailbox.domain}` : settingsKey(mailbox, file.site.recipient_delimiter);
}

function onto(base: Rules, override: Override): Rules {
  return {
    findings: override.rules === undefined ? base.findings : withRules(base.findings, own(override.rules)),
    unavailable:
      override.unavailable === undefined
        ? base.unavailable
        : withRules(base.unavailable, own(override.unavailable)),
    waivable: base.waivable,
    ...(base.copies === undefined ? {} : { copies: base.copies }),
    thresholds: thresholdsOnto(base.thresholds, override),
    subjectTag: override.subject_tag ?? base.subjectTag,
    ...bandsSetBy(base, override),
  };
}

function own(rules: Readonly<Record<string, Rule>>): Readonly<Record<string, Rule>> {
  return Object.fromEntries(
    Object.entries(rules).map(([name, rule]) => [name, { ...rule, setting: 'override' }]),
  );
}

function bandsSetBy({ bandsSetBy: before }: Rules, { thresholds = {} }: Override): Pick<Rules, 'bandsSetBy'> {
  const bands: Partial<Record<Band, Setting>> = { ...before };
  for (const band of BANDS) if (thresholds[band] !== undefined) bands[band] = 'override';
  return Object.keys(bands).length === 0 ? {} : { bandsSetBy: bands };
}

/** What is written down for one user holds, whatever the directory says of them. */
function pinnedBy({ thresholds, subject_tag: subjectTag }: Override): Pick<Rules, 'pinned'> {
  const { tag, junk, reject, discard } = thresholds ?? {};
  const pinned = {
    thresholds: {
      ...(tag === undefined ? {} : { tag }),
      ...(junk === undefined ? {} : { junk }),
      ...(reject === undefined ? {} : { reject }),
      ...(discard === undefined ? {} : { discard }),
    },
    ...(subjectTag === undefined ? {} : { subjectTag }),
  };
  return thresholds === undefined && subjectTag === undefined ? {} : { pinned };
}

export function thresholdsOnto(base: Thresholds, override: Override): Thresholds {
  return bandsOnto(base, override.thresholds);
}

/** What bands differ from `base`. */
export function bandsOnto(base: Thresholds, bands: Override['thresholds']): Thresholds {
  const { tag = base.tag, junk = base.junk, reject = base.reject, discard = base.discard } = bands ?? {};
  return { tag, junk, reject, discard };
}

function withRules(
  base: ReadonlyMap<string, Rule>,
  rules: Readonly<Record<string, Rule>>,
): ReadonlyMap<string, Rule> {
  return new Map([...base, ...Object.entries(rules)]);
}
