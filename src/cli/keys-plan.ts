import type { KeyKind } from '../adapters/key-maker.ts';
import type { Publication } from '../adapters/key-publication.ts';
import type { Role } from '../adapters/key-store.ts';

/** What is known of one key of a domain. */
export interface KnownKey {
  readonly selector: string;
  readonly role: Role;
  readonly kind: KeyKind;
  /** Since when it has its role, in milliseconds since 1970. */
  readonly since: number;
  readonly publication: Publication;
}

export interface LifeSettings {
  readonly newKeys: readonly KeyKind[];
  readonly rotateEveryMs: number;
  readonly queueLifetimeMs: number;
}

/** What can be done at once. */
export type Step =
  /** Signs from now on; `others`, which signed, do no more. */
  | { readonly kind: 'promote'; readonly selector: string; readonly others: readonly string[] }
  | { readonly kind: 'generate'; readonly keyKind: KeyKind }
  /** Its private key is deleted. */
  | { readonly kind: 'retire'; readonly selector: string }
  /** Its record is gone, nothing of it is left to be told. */
  | { readonly kind: 'forget'; readonly selector: string };

/** What only the administrator of the zone can do, or what is waited for. */
export type Task =
  /** `due`: signing waits for it. */
  | { readonly kind: 'publish'; readonly selector: string; readonly due: boolean }
  /** It signs, or did for mail that is still on its way, and not all servers have it. */
  | { readonly kind: 'restore'; readonly selector: string }
  /** No server told whether it has it. */
  | { readonly kind: 'unknown'; readonly selector: string }
  | { readonly kind: 'remove'; readonly selector: string };

export interface Plan {
  readonly steps: readonly Step[];
  readonly tasks: readonly Task[];
}

/** Beyond the queue's lifetime: the milter takes a moment to notice, and clocks differ. */
export const RETIRE_MARGIN_MS = 3_600_000;

/**
 * What is due for one domain. Done twice it gives the same: what a step does is seen in the keys, and a step that was broken off is planned again.
 *
 * @param now whether the next keys are to sign as soon as they are published, whatever the age of those that do
 */
export function planDomain(
  keys: readonly KnownKey[],
  { newKeys, rotateEveryMs, queueLifetimeMs }: LifeSettings,
  time: number,
  now: boolean,
): Plan {
  const steps: Step[] = [];
  const tasks: Task[] = [];
  const kinds = new Set([
    ...newKeys,
    ...keys.filter(({ role }) => role === 'next' || role === 'private').map(({ kind }) => kind),
  ]);
  for (const kind of kinds) {
    const own = keys.filter((key) => key.kind === kind);
    const waiting = own.filter(({ role }) => role === 'next');
    const signing = own.filter(({ role }) => role === 'private');
    const halfway = waiting.find((key) => signing.some(({ selector }) => selector === key.selector));
    if (halfway !== undefined) {
      steps.push(promotion(halfway, signing), ...preparation(kind, waiting, newKeys));
      continue;
    }
    // The newest counts: it may have been put there by hand, beside an older one.
    const begun = Math.max(...signing.map(({ since }) => since));
    const due = now || signing.length === 0 || time - begun >= rotateEveryMs;
    const ready = waiting.find(({ publication }) => publication.state === 'everywhere');
    if (due && ready !== undefined) {
      steps.push(promotion(ready, signing), ...preparation(kind, waiting, newKeys));
    } else {
      for (const { selector, publication } of waiting) {
        if (publication.state === 'unknown') tasks.push({ kind: 'unknown', selector });
        else if (publication.state !== 'everywhere') tasks.push({ kind: 'publish', selector, due });
      }
      // A kind that is not made any more is not prepared any more.
      if (waiting.length === 0 && newKeys.includes(kind)) steps.push({ kind: 'generate', keyKind: kind });
      tasks.push(...upkeep(signing));
    }
  }
  for (const key of keys) {
    const { selector, publication } = key;
    switch (key.role) {
      case 'next':
      case 'private':
        break;
      case 'old':
        if (time >= retiresAt(key, queueLifetimeMs)) steps.push({ kind: 'retire', selector });
        else tasks.push(...upkeep([key]));
        break;
      case 'retired':
        if (publication.state === 'unknown') tasks.push({ kind: 'unknown', selector });
        else if (publication.state === 'nowhere' && !publication.incomplete)
          steps.push({ kind: 'forget', selector });
        else tasks.push({ kind: 'remove', selector });
        break;
    }
  }
  return { steps, tasks };
}

/** What has to be in DNS. */
function upkeep(keys: readonly KnownKey[]): readonly Task[] {
  return keys.flatMap(({ selector, publication }): readonly Task[] => {
    switch (publication.state) {
      case 'everywhere':
        return [];
      case 'unknown':
        return [{ kind: 'unknown', selector }];
      case 'partly':
      case 'nowhere':
        return [{ kind: 'restore', selector }];
    }
  });
}

/** When an old key can go. */
export function retiresAt({ since }: { readonly since: number }, queueLifetimeMs: number): number {
  return since + queueLifetimeMs + RETIRE_MARGIN_MS;
}

function promotion({ selector }: KnownKey, signing: readonly KnownKey[]): Step {
  const others = signing.map((key) => key.selector).filter((other) => other !== selector);
  return { kind: 'promote', selector, others };
}

/** The next one after the one that begins to sign. */
function preparation(
  kind: KeyKind,
  waiting: readonly KnownKey[],
  newKeys: LifeSettings['newKeys'],
): readonly Step[] {
  return waiting.length > 1 || !newKeys.includes(kind) ? [] : [{ kind: 'generate', keyKind: kind }];
}

/** A name for a new key: the day, and the kind. @param taken selectors of the domain */
export function newSelector(kind: KeyKind, time: number, taken: ReadonlySet<string>): string {
  const day = new Date(time).toISOString().slice(0, 10).replaceAll('-', '');
  const name = `${day}-${kind}`;
  for (let count = 1; ; count++) {
    const selector = count === 1 ? name : `${name}-${count}`;
    if (!taken.has(selector)) return selector;
  }
}
