/** Text of SMTP or of a message, one character per byte, as UTF-8. RFC 6531. */
export function utf8(bytes: string): string {
  return Buffer.from(bytes, 'latin1').toString('utf8');
}
