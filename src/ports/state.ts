import type { AccountState } from './accounts.ts';
import type { GreylistState } from './greylist.ts';
import type { LimitState } from './limits.ts';
import type { QuotaState } from './quota.ts';

/** What decisions rest on between messages, shared by all daemons, and on Redis by all hosts. Calls reject when it can't be reached in time. */
export interface State extends LimitState, GreylistState, QuotaState, AccountState {
  /** Resolves when it answers. */
  ping(): Promise<void>;
}
