import { Registry } from 'prom-client';

import { counter, gauge } from '../../../src/runtime/metrics.ts';
import { WorkerSeat } from '../../../src/runtime/worker-seat.ts';

// A worker for tests: sends back what it is sent, with its number in front. "busy" keeps it from anything else until it is killed.

const number = process.argv[2] ?? '';
const registry = new Registry();
const lines = counter(registry, { name: 'lines_total', help: 'Lines sent back.' });
gauge(registry, { name: 'up', help: 'Always 1.', together: 'min' }).set(1);
const seat = new WorkerSeat({ channel: process, text: 'test', maxConnections: 100 });

let answer = number;
seat.onReload(() => {
  answer = `${number} again`;
});
seat.listener.serve((socket) => {
  socket.on('data', (chunk: Buffer) => {
    const said = chunk.toString('latin1').trim();
    if (said === 'exit') process.exit(7);
    lines.inc();
    // Called when the answer has left, before anything else is looked at.
    const sent = (): void => {
      if (said === 'busy') Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
    };
    socket.write(`${answer}: ${said}\n`, sent);
  });
});
if (process.argv[3] === 'fails') process.exit(3);
seat.ready(registry);
await seat.stopAsked;
const open = [...seat.listener.connections].map(
  (socket) => new Promise((resolve) => socket.once('close', resolve)),
);
seat.cut.addEventListener('abort', () => {
  for (const socket of seat.listener.connections) socket.destroy();
});
await Promise.all(open);
await seat.leave();
