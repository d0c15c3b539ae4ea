/** Octets of a body as they were before they were made fit for transport. RFC 2045 §6. */

const EQUALS = 0x3d;
const CR = 0x0d;
const LF = 0x0a;
const SPACE = 0x20;
const TAB = 0x09;

/** null: nobody knows this encoding. */
export function decodeTransfer(encoding: string, octets: Buffer): Buffer | null {
  switch (encoding) {
    case '':
    case '7bit':
    case '8bit':
    case 'binary':
      return octets;
    case 'base64':
      return decodeBase64(octets);
    case 'quoted-printable':
      return decodeQuotedPrintable(octets);
    case 'x-uuencode':
    case 'uuencode':
    case 'x-uue':
      return decodeUuencode(octets);
    default:
      return null;
  }
}

/** Characters outside the alphabet do not count, and padding in the middle ends nothing: some readers go on behind it. */
export function decodeBase64(octets: Buffer): Buffer {
  const raw = octets.toString('latin1');
  // Buffer takes the alphabet for file names as well, RFC 4648 §5, which mail does not have.
  const text = raw.includes('-') || raw.includes('_') ? raw.replaceAll(/[-_]+/g, '') : raw;
  const padding = text.indexOf('=');
  if (padding === -1 || /^[=\s]*$/.test(text.slice(padding))) return Buffer.from(text, 'base64');
  return Buffer.concat(text.split(/=+/).map((run) => Buffer.from(run, 'base64')));
}

/** RFC 2045 §6.7; what is no escape stays as it is. */
export function decodeQuotedPrintable(octets: Buffer): Buffer {
  if (!octets.includes(EQUALS)) return octets;
  const decoded = Buffer.allocUnsafe(octets.length);
  let to = 0;
  let from = 0;
  while (from < octets.length) {
    const octet = octets[from] ?? 0;
    if (octet !== EQUALS) {
      decoded[to++] = octet;
      from++;
      continue;
    }
    const high = hexDigit(octets[from + 1]);
    const low = hexDigit(octets[from + 2]);
    if (high !== -1 && low !== -1) {
      decoded[to++] = (high << 4) | low;
      from += 3;
      continue;
    }
    // A soft line break; blanks may have been put behind it on the way.
    let end = from + 1;
    while (octets[end] === SPACE || octets[end] === TAB) end++;
    if (octets[end] === CR && octets[end + 1] === LF) from = end + 2;
    else if (octets[end] === LF || end >= octets.length) from = end + 1;
    else {
      // All blanks at once: a run of them is looked at only once.
      to += octets.copy(decoded, to, from, end);
      from = end;
    }
  }
  return decoded.subarray(0, to);
}

function hexDigit(octet: number | undefined): number {
  if (octet === undefined) return -1;
  if (octet >= 0x30 && octet <= 0x39) return octet - 0x30;
  const letter = octet | 0x20;
  return letter >= 0x61 && letter <= 0x66 ? letter - 0x57 : -1;
}

const BEGIN = /^begin [0-7]{3,4} /;

function decodeUuencode(octets: Buffer): Buffer {
  const decoded = Buffer.allocUnsafe(octets.length);
  let to = 0;
  for (const line of octets.toString('latin1').split(/\r?\n/)) {
    if (BEGIN.test(line)) continue;
    if (line === 'end') break;
    let left = (line.charCodeAt(0) - 0x20) & 0x3f;
    for (let at = 1; left > 0 && at < line.length; at += 4) {
      const [a, b, c, d] = [0, 1, 2, 3].map((step) => ((line.charCodeAt(at + step) || SPACE) - SPACE) & 0x3f);
      const group = ((a ?? 0) << 18) | ((b ?? 0) << 12) | ((c ?? 0) << 6) | (d ?? 0);
      for (let shift = 16; shift >= 0 && left > 0; shift -= 8, left--)
        decoded[to++] = (group >> shift) & 0xff;
    }
  }
  return decoded.subarray(0, to);
}
