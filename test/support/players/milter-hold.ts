import { dial, Inbox } from './dial.ts';

export interface HeldMessages {
  readonly port: number;
  readonly connections: number;
  /** Octets of each body. */
  readonly size: number;
  readonly direction: 'in' | 'out';
}

const CHUNK = 65_535;

/** Lines of text; a view of it serves every message, so that this side needs no memory for them. */
const TEXT = Buffer.from(
  `${'The quick brown fox jumps over the lazy dog, time and again.'.padEnd(76, '.')}\r\n`.repeat(841),
  'latin1',
);

/**
 * As many connections as asked for, each with one message that is there but for its end; then all ends at once, as Postfix's cleanup
 * processes would. Gives the last letter of each answer. When `held` fails all hang up.
 */
export async function holdMessages(
  { port, connections, size, direction }: HeldMessages,
  held: () => Promise<void>,
): Promise<string[]> {
  const peers = await Promise.all(
    Array.from({ length: connections }, async (_, index) => {
      const socket = await dial({ port });
      const inbox = new Inbox(socket);
      const next = async (): Promise<string> => {
        const code = await inbox.next((bytes) => {
          if (bytes.length < 5) return null;
          const used = 4 + bytes.readUInt32BE(0);
          return bytes.length < used ? null : { value: bytes.toString('latin1', 4, 5), used };
        });
        if (code === null) throw new Error('the milter closed the connection');
        return code;
      };
      const write = async (bytes: Uint8Array): Promise<void> => {
        if (!socket.write(bytes)) await new Promise<void>((resolve) => socket.once('drain', resolve));
      };
      const domain = direction === 'in' ? 'sender.example' : 'rsa.example';
      const login = direction === 'in' ? [] : [packet('D', 'M{auth_authen}\0alice\0')];
      await write(
        Buffer.concat([
          packet('O', Buffer.from([0, 0, 0, 6, 0, 0, 1, 0xff, 0, 0x1f, 0xff, 0xff])),
          packet('C', `mx.sender.example\x004`, Buffer.from([0x80, index]), '192.0.2.9\0'),
          packet('H', 'mx.sender.example\0'),
          ...login,
          packet('M', `<alice@${domain}>\0`),
          packet('R', '<bob@example.org>\0'),
          packet('D', `Ti\0HOLD${index}\0`),
          packet('T'),
          packet('L', `From\0 alice@${domain}\0`),
          packet('L', 'Subject\0 large\0'),
          packet('N'),
        ]),
      );
      for (const expected of ['O', 'c']) {
        const answer = await next();
        if (answer !== expected) throw new Error(`${answer} in place of ${expected}`);
      }
      for (let left = size; left > 0; left -= CHUNK)
        await write(packet('B', TEXT.subarray(0, Math.min(left, CHUNK))));
      return { socket, next };
    }),
  );
  try {
    await held();
  } catch (error) {
    for (const { socket } of peers) socket.destroy();
    throw error;
  }
  const verdicts = await Promise.all(
    peers.map(async ({ socket, next }) => {
      socket.write(packet('E'));
      for (;;) {
        const answer = await next();
        // Edits and progress come before it.
        if ('cardtyf'.includes(answer)) return answer;
      }
    }),
  );
  for (const { socket } of peers) {
    socket.write(packet('Q'));
    socket.end();
  }
  return verdicts;
}

function packet(code: string, ...pieces: readonly (string | Uint8Array)[]): Buffer {
  const data = pieces.map((piece) => (typeof piece === 'string' ? Buffer.from(piece, 'latin1') : piece));
  const head = Buffer.alloc(5);
  head.writeUInt32BE(data.reduce((sum, piece) => sum + piece.length, 1));
  head.write(code, 4, 'latin1');
  return Buffer.concat([head, ...data]);
}
