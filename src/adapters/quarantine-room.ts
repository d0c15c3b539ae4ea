/** The quarantine must not outgrow these. Read for each message, so that a reload changes them. */
export interface QuarantineLimits {
  readonly maxAgeMs: number;
  readonly maxOctets: number;
  readonly maxMessages: number;
  /** What is younger is not removed to make room. */
  readonly leastAgeMs: number;
}

export interface QuarantineEvents {
  /** After each change that is known here. */
  filled(messages: number, octets: number): void;
  removed(id: string, why: 'age' | 'room'): void;
}

/** There is no room, and nothing may be removed to make some. */
export class QuarantineFull extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'QuarantineFull';
  }
}

/** What the room is made in. */
interface Keep {
  sizes(): Promise<readonly number[]>;
  oldestFirst(): Promise<readonly { readonly id: string; readonly time: number; readonly size: number }[]>;
  /** false: it was gone already. */
  remove(id: string): Promise<boolean>;
}

interface Filling {
  readonly messages: number;
  readonly octets: number;
}

/** Keeps the quarantine within its limits. */
export class QuarantineRoom {
  readonly #keep: Keep;
  readonly #limits: () => QuarantineLimits;
  readonly #events: QuarantineEvents;
  readonly #now: () => number;
  /** Counted once, and again when it seems full: others remove messages too. */
  #filling: Filling | null = null;

  constructor(keep: Keep, limits: () => QuarantineLimits, events: QuarantineEvents, now: () => number) {
    this.#keep = keep;
    this.#limits = limits;
    this.#events = events;
    this.#now = now;
  }

  /** For one message more. @throws {QuarantineFull} */
  async make(octets: number): Promise<void> {
    if (!(await this.#fit({ messages: 1, octets }))) {
      throw new QuarantineFull(
        'the quarantine is full, and nothing in it is older than quarantine.least_age',
      );
    }
  }

  /** The limits may have become lower. */
  async tidy(): Promise<void> {
    await this.#count();
    await this.#fit({ messages: 0, octets: 0 });
  }

  taken(octets: number): void {
    const { messages, octets: before } = this.#filling ?? { messages: 0, octets: 0 };
    this.#note({ messages: messages + 1, octets: before + octets });
  }

  async #fit(more: Filling): Promise<boolean> {
    if (this.#fits(this.#filling ?? (await this.#count()), more)) return true;
    let filling = await this.#count();
    if (this.#fits(filling, more)) return true;
    const { leastAgeMs } = this.#limits();
    for (const { id, time, size } of await this.#keep.oldestFirst()) {
      if (this.#now() - time < leastAgeMs) break;
      if (!(await this.#keep.remove(id))) continue;
      this.#events.removed(id, 'room');
      filling = { messages: filling.messages - 1, octets: filling.octets - size };
      if (this.#fits(filling, more)) break;
    }
    this.#note(filling);
    return this.#fits(filling, more);
  }

  #fits({ messages, octets }: Filling, more: Filling): boolean {
    const { maxMessages, maxOctets } = this.#limits();
    return messages + more.messages <= maxMessages && octets + more.octets <= maxOctets;
  }

  async #count(): Promise<Filling> {
    const sizes = await this.#keep.sizes();
    return this.#note({
      messages: sizes.length,
      octets: sizes.reduce((sum, size) => sum + size, 0),
    });
  }

  #note(filling: Filling): Filling {
    this.#filling = filling;
    this.#events.filled(filling.messages, filling.octets);
    return filling;
  }
}
