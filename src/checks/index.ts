import { accessCheck } from './access.ts';
import { accountCheck, accountEndCheck } from './account.ts';
import { arcCheck } from './arc.ts';
import { authorCheck } from './author.ts';
import type { CheckDefinition } from './check.ts';
import { contentCheck } from './content.ts';
import { dkimCheck } from './dkim.ts';
import { dmarcCheck } from './dmarc.ts';
import { dnsblCheck } from './dnsbl.ts';
import { greylistCheck } from './greylist.ts';
import { heloCheck } from './helo.ts';
import { limitsEndCheck } from './limits-end.ts';
import { limitsCheck } from './limits.ts';
import { listsCheck } from './lists.ts';
import { mxCheck } from './mx.ts';
import { ptrCheck } from './ptr.ts';
import { quotaEndCheck } from './quota-end.ts';
import { quotaCheck } from './quota.ts';
import { senderCheck } from './sender.ts';
import { settingsCheck, settingsRcptCheck } from './settings.ts';
import { spamCheck } from './spam.ts';
import { spfCheck } from './spf.ts';
import { virusCheck } from './virus.ts';

/** Every check, in the order in which their verdicts break ties. A check stands below those it needs. */
export const CHECKS: readonly CheckDefinition[] = [
  accessCheck,
  settingsRcptCheck,
  heloCheck,
  ptrCheck,
  mxCheck,
  spfCheck,
  dnsblCheck,
  senderCheck,
  accountCheck,
  accountEndCheck,
  greylistCheck,
  quotaCheck,
  quotaEndCheck,
  limitsCheck,
  limitsEndCheck,
  virusCheck,
  contentCheck,
  dkimCheck,
  arcCheck,
  dmarcCheck,
  authorCheck,
  settingsCheck,
  listsCheck,
  spamCheck,
];
