import { once } from 'node:events';
import { createServer } from 'node:net';

import { expect, test } from 'vitest';

import { CountedSocket } from '../../../src/adapters/counted-socket.ts';

test('an answer of the limit is taken, one octet more ends the connection; each question counts for itself', async () => {
  await using server = createServer((socket) => {
    socket.on('error', () => {});
    socket.on('data', (chunk: Buffer) => socket.write('x'.repeat(Number(chunk.toString()))));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const counted = new CountedSocket(true, 100);
  const { socket } = counted;
  let octets = 0;
  socket.on('data', (chunk: Buffer) => (octets += chunk.length));
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  socket.connect({ host: '127.0.0.1', port: address.port });
  await once(socket, 'connect');
  for (const question of [1, 2]) {
    counted.begin();
    socket.write('100');
    await expect.poll(() => octets).toBe(100 * question);
    expect(socket.destroyed).toBe(false);
  }
  const closed = new Promise((resolve) => socket.once('close', resolve));
  counted.begin();
  socket.write('101');
  await closed;
  expect(socket.errored?.message).toBe('the answer is longer than 100 octets');
});
