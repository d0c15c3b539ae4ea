// The least that node:net can do as a policy server: answers every request with DUNNO and looks at nothing. What a policy server
// costs above it is its own; how fast it is tells how fast the machine is.
//   node bench/least.ts PORT
import { createServer } from 'node:net';

const END = '\n\n';
const ANSWER = 'action=DUNNO\n\n';

const server = createServer({ noDelay: true }, (socket) => {
  let held = '';
  socket.on('data', (chunk: Buffer) => {
    held += chunk.toString('latin1');
    for (let end = held.indexOf(END); end !== -1; end = held.indexOf(END)) {
      held = held.slice(end + END.length);
      socket.write(ANSWER, 'latin1');
    }
  });
  socket.on('error', () => socket.destroy());
});
server.listen({ host: '127.0.0.1', port: Number(process.argv[2]), backlog: 1024 }, () =>
  console.log('ready'),
);
