import type { Label } from './store.ts';

/** A message with what a user says it is, for the scanner to learn from. */
export interface Lesson extends Label {
  /** Octets, as the scanner is to see them. */
  readonly content: Uint8Array;
}

/** What learning came to. `known`: the scanner knew it already, or its own configuration lets it learn nothing. */
export type Learned = 'learned' | 'known';

/** A scanner that learns. */
export interface SpamTeacher {
  /** @throws {NeighbourError} when it does not learn now; whether it may at another time is not known */
  teach(lesson: Lesson, signal: AbortSignal): Promise<Learned>;
}

/** There is no room for another lesson. */
export class LessonsFull extends Error {
  constructor(octets: number) {
    super(`${octets} octets of messages wait to be learned already`);
    this.name = 'LessonsFull';
  }
}

/** Lessons that wait for the scanner. They survive the end of the process. */
export interface LessonQueue {
  /** Keeps a lesson, in place of an earlier one of the same message and user. @throws {LessonsFull} */
  add(lesson: Lesson): Promise<void>;
  /** Drops what waits for this message and user: it was taught another way. */
  drop(lesson: Pick<Lesson, 'message' | 'user'>): Promise<void>;
  /** Names of all that wait, the oldest first. */
  waiting(): Promise<readonly string[]>;
  /** Takes a lesson out, so that a later one of the same message and user waits beside it; null: it is gone, or can't be read. */
  take(name: string): Promise<Lesson | null>;
  /** The lesson that was taken needs no other attempt. */
  done(name: string): Promise<void>;
  /** The lesson that was taken waits again, unless a later one does. */
  putBack(name: string): Promise<void>;
}
