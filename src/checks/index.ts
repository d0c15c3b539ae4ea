import type { CheckDefinition } from './check.ts';

/** Every check, in the order in which their verdicts break ties. A check stands below those it needs. */
export const CHECKS: readonly CheckDefinition[] = [];
