import type { Outcome } from './finding.ts';
import type { Rules } from './rules.ts';

/** Who gets a copy of a message that goes on: addresses that rules name for what was found, each once. What is in shadow copies nothing. */
export function copiesFor(outcomes: readonly Outcome[], rules: Rules): readonly string[] {
  const { copies } = rules;
  if (copies === undefined || copies.size === 0) return [];
  const addresses = new Set<string>();
  for (const outcome of outcomes) {
    if (outcome.kind !== 'found') continue;
    for (const { code } of outcome.findings) {
      if (rules.findings.get(code)?.mode === 'shadow') continue;
      for (const address of copies.get(code) ?? []) addresses.add(address);
    }
  }
  return [...addresses];
}
