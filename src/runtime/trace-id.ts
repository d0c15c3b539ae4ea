import { randomBytes } from 'node:crypto';

const ALPHABET = 'abcdefghijklmnopqrstuvwxyz234567';

/** 16 characters of base32, 80 random bits: names one message, and can't be guessed. */
export function newTraceId(): string {
  let id = '';
  let bits = 0;
  let held = 0;
  for (const byte of randomBytes(10)) {
    held = (held << 8) | byte;
    bits += 8;
    while (bits >= 5) {
      bits -= 5;
      id += ALPHABET[(held >> bits) & 31];
      held &= (1 << bits) - 1;
    }
  }
  return id;
}
