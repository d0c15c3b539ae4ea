/** Time, by argument, so that tests own it. */
export interface Clock {
  /** Milliseconds since 1970, UTC. */
  now(): number;
  /** Milliseconds that only go forward, for durations. */
  elapsed(): number;
}
