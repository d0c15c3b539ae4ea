import { randomUUID } from 'node:crypto';

const ALPHABET = 'abcdefghijklmnopqrstuvwxyz234567';

/**
 * 16 characters of base32, 80 random bits: names one message, and can't be guessed.
 *
 * The bits are those of a random UUID outside its version and variant (RFC 9562 §5.4), because Node draws random bytes for
 * many of these at once; a draw of its own would cost more than all else that a policy request takes.
 */
export function newTraceId(): string {
  const uuid = randomUUID();
  return base32(uuid.slice(0, 8) + uuid.slice(24, 26)) + base32(uuid.slice(26));
}

/** 10 hexadecimal digits as 8 characters. */
function base32(hex: string): string {
  let text = '';
  for (let value = Number.parseInt(hex, 16), digits = 0; digits < 8; digits++) {
    text += ALPHABET[value % 32];
    value = Math.floor(value / 32);
  }
  return text;
}
