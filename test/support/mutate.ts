/** Random numbers that are the same each time, in [0, 1). */
export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}

/** Octets that line-oriented parsers stumble over. */
const AWKWARD = [
  0x00, 0x09, 0x0a, 0x0d, 0x20, 0x22, 0x2b, 0x2d, 0x2e, 0x30, 0x3c, 0x3d, 0x3e, 0x5c, 0x7f, 0xff,
];

/** A copy with one to eight octets changed, removed, doubled or put in, or a piece moved. */
export function mutated(octets: Uint8Array, random: () => number): Buffer {
  let out: Buffer = Buffer.from(octets);
  const pick = (limit: number): number => Math.floor(random() * limit);
  for (let i = 1 + pick(8); i > 0; i--) {
    const at = pick(out.length + 1);
    const octet = AWKWARD[pick(AWKWARD.length)] ?? 0;
    switch (pick(5)) {
      case 0:
        if (at < out.length) out[at] = octet;
        break;
      case 1:
        out = Buffer.concat([out.subarray(0, at), out.subarray(at + 1 + pick(4))]);
        break;
      case 2:
        out = Buffer.concat([out.subarray(0, at), Buffer.of(octet), out.subarray(at)]);
        break;
      case 3: {
        const end = Math.min(out.length, at + pick(20));
        out = Buffer.concat([out.subarray(0, end), out.subarray(at, end), out.subarray(end)]);
        break;
      }
      default: {
        const to = pick(out.length + 1);
        out = Buffer.concat([out.subarray(to), out.subarray(0, to)]);
      }
    }
  }
  return out;
}

/** The octets in pieces, cut at random places. */
export function cut(octets: Buffer, pieces: number, random: () => number): Buffer[] {
  const places = Array.from({ length: pieces - 1 }, () => Math.floor(random() * (octets.length + 1)));
  const ends = [...places.toSorted((a, b) => a - b), octets.length];
  let from = 0;
  return ends.map((end) => {
    const piece = Buffer.from(octets.subarray(from, end));
    from = end;
    return piece;
  });
}
