import type { CheckDefinition } from './check.ts';
import { dkimCheck } from './dkim.ts';
import { dmarcCheck } from './dmarc.ts';
import { spamCheck } from './spam.ts';
import { spfCheck } from './spf.ts';

/** Every check, in the order in which their verdicts break ties. A check stands below those it needs. */
export const CHECKS: readonly CheckDefinition[] = [spfCheck, dkimCheck, dmarcCheck, spamCheck];
