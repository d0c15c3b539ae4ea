import type { CheckDefinition } from '../checks/check.ts';
import { parseMailbox, settingsKey } from '../mail/address.ts';
import type { Policy, Rule, Rules, Thresholds } from '../verdict/rules.ts';
import type { ConfigFile } from './schema.ts';

type Override = ConfigFile['override'][number];

/** The rules of the site, and those of each domain and user that has its own: user onto domain, domain onto site. */
export function mergePolicy(file: ConfigFile, checks: readonly CheckDefinition[]): Policy {
  const findings = new Map<string, Rule>();
  const unavailable = new Map<string, Rule>();
  for (const check of checks) {
    unavailable.set(check.name, { action: { kind: check.unavailable }, mode: 'enforce' });
    for (const [code, info] of Object.entries(check.codes)) {
      findings.set(code, { action: { kind: info.action }, mode: 'enforce' });
    }
  }
  const site: Rules = {
    findings: withRules(findings, file.rules),
    unavailable: withRules(unavailable, file.unavailable),
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

/** The key of Policy.overrides: lower case, without address extension. */
export function overrideKey(recipient: string, file: ConfigFile): string {
  const mailbox = parseMailbox(recipient);
  return mailbox.local === '' ? `@${mailbox.domain}` : settingsKey(mailbox, file.site.recipient_delimiter);
}

function onto(base: Rules, override: Override): Rules {
  return {
    findings: override.rules === undefined ? base.findings : withRules(base.findings, override.rules),
    unavailable: base.unavailable,
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
