// Takes LMTP mail on the port given and keeps nothing; a process of its own, so that its CPU time is not the daemon's.
import { LmtpSink } from '../test/support/players/lmtp-sink.ts';

const port = Number(process.argv[2]);
await LmtpSink.open({ keep: false, port });
console.log('ready');
