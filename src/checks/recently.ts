/** Keys that something was done about a short while ago, so that it need not be done again for each message. Bounded. */
export class Recently {
  readonly #ageMs: number;
  readonly #most: number;
  /** The oldest first. */
  readonly #times = new Map<string, number>();

  constructor(ageMs: number, most: number) {
    this.#ageMs = ageMs;
    this.#most = most;
  }

  has(key: string, now: number): boolean {
    const time = this.#times.get(key);
    return time !== undefined && now - time < this.#ageMs;
  }

  add(key: string, now: number): void {
    this.#times.delete(key);
    this.#times.set(key, now);
    if (this.#times.size <= this.#most) return;
    for (const oldest of this.#times.keys()) {
      this.#times.delete(oldest);
      break;
    }
  }

  delete(key: string): void {
    this.#times.delete(key);
  }
}
