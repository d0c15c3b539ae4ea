/** A Cluster has so many slots; each key is in one, and each slot at one master. */
export const SLOTS = 16_384;
/** The most ranges and nodes that a Cluster may tell of: far more than Redis recommends (1000 nodes). */
const RANGES_LIMIT = SLOTS;
const NODES_LIMIT = 5000;

/** CRC-16/XMODEM by octet: what the Cluster specification hashes keys with (Appendix A). */
const CRC = Uint16Array.from({ length: 256 }, (_, octet) => {
  let crc = octet << 8;
  for (let bit = 0; bit < 8; bit++) crc = crc & 0x8000 ? (crc << 1) ^ 0x1021 : crc << 1;
  return crc & 0xffff;
});

/** The slot of a key: of what stands between its first braces, when that is something (Cluster specification, "Hash tags"). */
export function slotOf(key: string): number {
  const open = key.indexOf('{');
  const close = open === -1 ? -1 : key.indexOf('}', open + 1);
  const hashed = close > open + 1 ? key.slice(open + 1, close) : key;
  let crc = 0;
  for (const octet of Buffer.from(hashed))
    crc = ((crc << 8) & 0xffff) ^ (CRC[((crc >> 8) ^ octet) & 0xff] ?? 0);
  return crc % SLOTS;
}

export interface Node {
  readonly host: string;
  readonly port: number;
}

export interface SlotMap {
  /** The name of the master of each slot; undefined: nobody serves it. */
  readonly masters: readonly (string | undefined)[];
  /** All nodes, replicas as well, by name. */
  readonly nodes: ReadonlyMap<string, Node>;
}

export function nodeName({ host, port }: Node): string {
  return `${host}:${port}`;
}

/** What CLUSTER SLOTS says. @param asked whom: nodes without a host of their own are where he is. null: it can't be read */
export function readSlots(answer: unknown, asked: string): SlotMap | null {
  if (!Array.isArray(answer) || answer.length === 0 || answer.length > RANGES_LIMIT) return null;
  const masters = Array.from<string | undefined>({ length: SLOTS });
  const nodes = new Map<string, Node>();
  for (const range of answer as readonly unknown[]) {
    if (!Array.isArray(range)) return null;
    const words: readonly unknown[] = range;
    const [from, to, ...members] = words;
    if (!isSlot(from) || !isSlot(to)) return null;
    for (const [place, member] of members.entries()) {
      const node = readNode(member, asked);
      if (node === null) return null;
      const name = nodeName(node);
      nodes.set(name, node);
      if (place === 0) masters.fill(name, from, to + 1);
    }
  }
  return nodes.size > NODES_LIMIT ? null : { masters, nodes };
}

function readNode(member: unknown, asked: string): Node | null {
  const words: readonly unknown[] = Array.isArray(member) ? member : [];
  const [host, port] = words;
  if (typeof port !== 'number' || !Number.isInteger(port) || port < 1 || port > 65_535) return null;
  // nil: the node that was asked does not know its own address; "?": the name of it is not set.
  if (host === null || host === '' || host === '?') return { host: asked, port };
  return typeof host === 'string' ? { host, port } : null;
}

function isSlot(value: unknown): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value >= 0 && value < SLOTS;
}
