// Answers every scan on the port given as spamd would, without looking at it; a process of its own, so that its CPU time is not the daemon's.
import { createServer } from 'node:net';

const FIELDS =
  'X-Spam-Checker-Version: SpamAssassin 4.0.1 (2024-03-25) on mx.example.org\r\nX-Spam-Level: *\r\n' +
  'X-Spam-Status: No, score=1.2 required=5.0 tests=DKIM_SIGNED,DKIM_VALID,\r\n\tDKIM_VALID_AU,HTML_MESSAGE,RCVD_IN_DNSWL_NONE,SPF_HELO_NONE,SPF_PASS\r\n' +
  '\tautolearn=no autolearn_force=no version=4.0.1\r\n';
const END = Buffer.from('\r\n\r\n');

createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
  const chunks: Buffer[] = [];
  socket.on('error', () => socket.destroy());
  socket.on('data', (chunk) => chunks.push(chunk));
  socket.on('end', () => {
    const request = Buffer.concat(chunks);
    if (request.subarray(0, 4).toString() === 'PING') {
      socket.end('SPAMD/1.5 0 PONG\r\n');
      return;
    }
    const message = request.subarray(request.indexOf(END) + END.length);
    const section = FIELDS + message.subarray(0, message.indexOf(END) + END.length).toString('latin1');
    socket.end(
      `SPAMD/1.1 0 EX_OK\r\nContent-length: ${section.length}\r\nSpam: False ; 1.2 / 5.0\r\n\r\n${section}`,
      'latin1',
    );
  });
}).listen({ host: '127.0.0.1', port: Number(process.argv[2]) }, () => console.log('ready'));
