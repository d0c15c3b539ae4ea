import type { Direction } from '../mail/envelope.ts';
import type { AnyBoundCheck, BoundCheck, CheckTools } from './check.ts';

type Checks = readonly AnyBoundCheck[];

/** The checks that take part, by stage. */
export interface Plan {
  readonly checks: Checks;
  readonly mail: readonly BoundCheck<'mail'>[];
  readonly rcpt: readonly BoundCheck<'rcpt'>[];
  readonly admission: readonly BoundCheck<'admission'>[];
  readonly end: readonly BoundCheck<'end'>[];
  readonly message: readonly BoundCheck<'message'>[];
  /** Of each check in the list. */
  readonly places: ReadonlyMap<string, number>;
}

/** What a list of checks comes to in one direction. */
interface Concerned {
  readonly checks: Checks;
  /** Of those that were ready the last time: that seldom changes. */
  plan: Plan;
}

/** Made once for each list of checks: a message must not pay for what all messages share. */
const known = new WeakMap<Checks, Partial<Record<Direction, Concerned>>>();

/** The checks of the list that look at mail in this direction and are ready to. */
export function planFor(all: Checks, direction: Direction, tools: CheckTools): Plan {
  let directions = known.get(all);
  if (directions === undefined) known.set(all, (directions = {}));
  let concerned = directions[direction];
  if (concerned === undefined) {
    const checks = all.filter((check) => check.directions.includes(direction));
    directions[direction] = concerned = { checks, plan: planOf(checks) };
  }
  const { checks, plan } = concerned;
  let ready = 0;
  let same = true;
  for (const check of checks) {
    if (check.ready(tools)) same &&= plan.checks[ready++] === check;
  }
  if (!same || ready !== plan.checks.length) {
    concerned.plan = planOf(checks.filter((check) => check.ready(tools)));
  }
  return concerned.plan;
}

function planOf(checks: Checks): Plan {
  return {
    checks,
    mail: checks.filter((check) => check.stage === 'mail'),
    rcpt: checks.filter((check) => check.stage === 'rcpt'),
    admission: checks.filter((check) => check.stage === 'admission'),
    end: checks.filter((check) => check.stage === 'end'),
    message: checks.filter((check) => check.stage === 'message'),
    places: new Map(checks.map(({ name }, index) => [name, index])),
  };
}
