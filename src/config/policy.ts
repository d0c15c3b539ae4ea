import type { AnyBoundCheck, CheckDefinition, CodeInfo } from '../checks/check.ts';
import { parseMailbox, settingsKey } from '../mail/address.ts';
import type { Policy, Rule, Rules, Thresholds } from '../verdict/rules.ts';
import type { ConfigFile } from './schema.ts';

type Override = ConfigFile['override'][number];

/** What `[[policy]]` changes. */
export type ContextPolicy = ConfigFile['policy'][number];

/**
 * The rules of the site, and those of each domain and user that has its own: user onto domain, domain onto what one policy_context changes, that
 * onto the site.
 *
 * @param bound enabled checks, which may have codes of their own
 */
export function mergePolicy(
  file: ConfigFile,
  checks: readonly CheckDefinition[],
  bound: readonly AnyBoundCheck[],
  context: ContextPolicy | null = null,
): Policy {
  const findings = new Map<string, Rule>();
  const unavailable = new Map<string, Rule>();
  for (const { name, unavailable: kind } of checks)
    unavailable.set(name, { action: { kind }, mode: 'enforce' });
  for (const check of [...checks, ...bound]) {
    for (const [code, info] of Object.entries(check.codes)) findings.set(code, ruleOf(info));
  }
  const site: Rules = {
    findings: withRules(withRules(findings, file.rules), context?.rules ?? {}),
    unavailable: withRules(withRules(unavailable, file.unavailable), context?.unavailable ?? {}),
    waivable: new Set(checks.filter((check) => check.waivable === true).map(({ name }) => name)),
    thresholds: file.thresholds,
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
    overrides.set(key, onto(overrides.get(key.slice(key.lastIndexOf('@'))) ?? site, override));
  }
  return { site, overrides, delimiter: file.site.recipient_delimiter };
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
    findings: override.rules === undefined ? base.findings : withRules(base.findings, override.rules),
    unavailable:
      override.unavailable === undefined
        ? base.unavailable
        : withRules(base.unavailable, override.unavailable),
    waivable: base.waivable,
    thresholds: thresholdsOnto(base.thresholds, override),
    subjectTag: override.subject_tag ?? base.subjectTag,
  };
}

export function thresholdsOnto(base: Thresholds, override: Override): Thresholds {
  const { tag = base.tag, junk = base.junk, reject = base.reject } = override.thresholds ?? {};
  return { tag, junk, reject };
}

function withRules(
  base: ReadonlyMap<string, Rule>,
  rules: Readonly<Record<string, Rule>>,
): ReadonlyMap<string, Rule> {
  return new Map([...base, ...Object.entries(rules)]);
}
