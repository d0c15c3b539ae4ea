import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

/** Octets of buffers that may have been used and left before they are looked for. */
export const GARBAGE_OCTETS = 4 * 1024 * 1024;

let octets = 0;
let collectMinor: (() => void) | null = null;

/**
 * Told of each buffer that large messages pass through. The octets of a buffer are outside of the heap, so a flood of mail fills memory with buffers that
 * nobody has any more, long before the young generation that holds their handles is full and gone through. It is gone through here every few
 * mebibytes instead: what is young then is little, and takes less than a millisecond.
 */
export function noteBuffer(length: number): void {
  octets += length;
  if (octets < GARBAGE_OCTETS) return;
  octets = 0;
  collectMinor ??= collector();
  collectMinor();
}

/** V8 shows its collector to contexts that are made while the flag is set. */
function collector(): () => void {
  setFlagsFromString('--expose-gc');
  const found: unknown = runInNewContext('gc');
  setFlagsFromString('--no-expose-gc');
  if (typeof found !== 'function') throw new Error('V8 has no collector to call');
  return () => void Reflect.apply(found, undefined, [{ type: 'minor' }]);
}
