import type { Account } from '../ports/directory.ts';

/** What is set for an account, onto what is set for its domain. Lists stay apart: its own come first. */
export function ontoDomain(domain: Account, own: Account): Account {
  const { allow, block, ...others } = domain;
  const lists = { ...(allow === undefined ? {} : { allow }), ...(block === undefined ? {} : { block }) };
  return {
    ...others,
    ...own,
    limits: domain.limits.size === 0 ? own.limits : new Map([...domain.limits, ...own.limits]),
    senders: domain.senders.length === 0 ? own.senders : [...domain.senders, ...own.senders],
    ...(domain.thresholds === undefined ? {} : { thresholds: { ...domain.thresholds, ...own.thresholds } }),
    ...(allow === undefined && block === undefined ? {} : { domainLists: lists }),
    // Whoever has a language of its own does not get the text of the domain.
    ...(own.language !== undefined && own.subjectTag === undefined
      ? { subjectTag: domain.subjectTag !== false }
      : {}),
  };
}
