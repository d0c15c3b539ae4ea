import type { BoundCheck, CheckDefinition, CheckTools, RcptFacts } from '../../../src/checks/check.ts';
import { parseMailbox, parseReversePath } from '../../../src/mail/address.ts';
import type { Client, Direction } from '../../../src/mail/envelope.ts';
import type { Finding, Outcome } from '../../../src/verdict/finding.ts';
import { checkTools } from '../../support/checks.ts';
import { client } from '../../support/mail.ts';

/** What a test of one of policyd's checks says; the rest is ordinary: odin of valhalla writes to zeus. */
export interface Case {
  readonly client?: Partial<Client>;
  readonly sender?: string;
  readonly recipient?: string;
  readonly direction?: Direction;
  readonly options?: Readonly<Record<string, unknown>>;
  readonly tools?: Partial<CheckTools>;
  readonly prior?: readonly Outcome[];
  readonly signal?: AbortSignal;
  readonly deadlineMs?: number;
}

export function rcptFacts({ client: values = {}, sender, recipient, direction }: Case = {}): RcptFacts {
  return {
    client: client(values),
    direction: direction ?? 'in',
    sender: parseReversePath(sender ?? 'odin@valhalla.example'),
    recipient: parseMailbox(recipient ?? 'zeus@olimpus.example'),
    size: null,
    identity: { trace: 'aaaabbbbccccdddd' },
    accepted: [],
  };
}

/** The check with its options, run with what a recipient's request tells. */
export function runCheck(
  check: CheckDefinition,
  values: Case = {},
): Promise<readonly Finding[]> | readonly Finding[] {
  const bound = check.bind(values.options ?? {}, values.deadlineMs ?? 5000);
  if (!isOf(bound)) throw new Error(`${check.name} is made at another stage`);
  return bound.run({
    facts: rcptFacts(values),
    tools: checkTools(values.tools),
    prior: new Map((values.prior ?? []).map((outcome) => [outcome.check, outcome])),
    signal: values.signal ?? new AbortController().signal,
  });
}

/** Facts of a recipient hold those of its message. */
function isOf(bound: { readonly stage: string }): bound is BoundCheck<'admission'> {
  return bound.stage === 'mail' || bound.stage === 'rcpt' || bound.stage === 'admission';
}

/** Codes that were found; the check has to answer at once. */
export function codesAtOnce(check: CheckDefinition, values: Case = {}): string[] {
  const findings = runCheck(check, values);
  if (findings instanceof Promise) throw new Error('this should have been answered at once');
  return findings.map(({ code }) => code);
}

export async function codes(check: CheckDefinition, values: Case = {}): Promise<string[]> {
  return (await runCheck(check, values)).map(({ code }) => code);
}

/** An outcome as earlier checks leave it. */
export function found(...list: readonly string[]): Outcome {
  return {
    kind: 'found',
    check: list[0]?.split('.')[0] ?? '',
    findings: list.map((code) => ({ code, detail: code })),
    elapsed: 1,
  };
}

/** Values of a client or a mail that no honest one has. */
export const HOSTILE: readonly string[] = [
  '',
  ' ',
  '.',
  '..',
  '*',
  '[',
  ']',
  '[]',
  '[IPv6:',
  '@',
  '@@',
  '\u0000',
  'a\r\nb',
  'caf\u00e9.example',
  '\u00ff'.repeat(50),
  '.'.repeat(5000),
  '-'.repeat(5000),
  'a.'.repeat(5000),
  '1-'.repeat(5000),
  '1'.repeat(100_000),
  `${'x'.repeat(100_000)}.example`,
  '__proto__',
  'constructor',
];
