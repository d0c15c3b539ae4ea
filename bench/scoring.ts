import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { freePort } from '../test/support/neighbours/ports.ts';
import { MilterClient, type MilterMail } from '../test/support/players/milter-client.ts';
import { sample, type Sample } from './corpus.ts';
import { Watched } from './server.ts';

const CONNECTIONS = 8;
const OTHERS = ['spf', 'dkim', 'arc', 'dmarc', 'virus'];

export interface ScoringBench {
  readonly folder: string;
  readonly dnsPort: number;
  /** Messages of one measurement. */
  readonly messages: number;
  readonly only: string;
  /** The built program. */
  readonly profile: string;
}

export interface Scored {
  readonly name: string;
  readonly messages: number;
  readonly perSecond: number;
  /** Of the milter, user and system. */
  readonly cpuMicroseconds: number;
}

/** What a score costs the milter, beyond a message that it only passes on, before a spamd that costs nothing. */
export async function benchScoring(bench: ScoringBench): Promise<readonly Scored[]> {
  const results: Scored[] = [];
  if (!'milter, scoring'.includes(bench.only)) return results;
  const stub = await freePort();
  await using cleanup = new AsyncDisposableStack();
  cleanup.use(await Watched.start([join(import.meta.dirname, 'stub-spamd.ts'), String(stub)], 'ready'));
  for (const scoring of [false, true]) {
    const port = await freePort();
    await using server = await startMilter(bench, scoring, port, stub);
    for (const mail of [
      sample('2 KiB', 2048, 'sender.example'),
      sample('50 KiB', 50 * 1024, 'sender.example'),
    ]) {
      const name = `milter, ${scoring ? 'scoring' : 'nothing'}, ${mail.name}`;
      results.push(await measure(name, mail, { bench, scoring, port, server }));
    }
  }
  return results;
}

async function startMilter(
  { folder, dnsPort, profile }: ScoringBench,
  scoring: boolean,
  port: number,
  stub: number,
): Promise<Watched> {
  const own = join(folder, `scoring-${scoring}`);
  await mkdir(own, { recursive: true });
  const config = join(own, 'postern.toml');
  await writeFile(
    config,
    [
      `dns.servers = ["127.0.0.1:${dnsPort}"]`,
      'site.hostname = "mx.example.org"',
      `state.folder = ${JSON.stringify(join(own, 'state'))}`,
      `milter.listen = "127.0.0.1:${port}"`,
      `spamd.enabled = ${scoring}`,
      `spamd.address = "127.0.0.1:${stub}"`,
      `spamd.max_connections = ${CONNECTIONS}`,
      'clamd.enabled = false',
      ...OTHERS.map((name) => `checks.${name}.enabled = false`),
    ].join('\n'),
  );
  return await Watched.startPostern('milter', config, profile);
}

interface Course {
  readonly bench: ScoringBench;
  readonly scoring: boolean;
  readonly port: number;
  readonly server: Watched;
}

async function measure(
  name: string,
  mail: Sample,
  { bench, scoring, port, server }: Course,
): Promise<Scored> {
  const clients = await Promise.all(
    Array.from({ length: CONNECTIONS }, (_, index) => open(port, mail, index)),
  );
  const rounds = Math.ceil(bench.messages / CONNECTIONS);
  const pass = async (from: number, count: number): Promise<void> => {
    await Promise.all(
      clients.map(async ({ client, message }, index) => {
        for (let n = from; n < from + count; n++) {
          const queueId = `S${index}n${n}`;
          const { verdict, edits } = await client.message({ ...message, queueId });
          const scored = edits.some(
            ({ name: field, value }) => field === 'X-Spam-Status' && value.includes('score=1.2'),
          );
          if (verdict !== 'c' || scored !== scoring)
            throw new Error(`unexpected answer to ${name}: ${verdict}`);
        }
      }),
    );
  };
  await pass(0, Math.ceil(rounds / 10));
  const cpu = server.cpu();
  const begun = performance.now();
  await pass(rounds, rounds);
  const seconds = (performance.now() - begun) / 1000;
  const messages = rounds * CONNECTIONS;
  const cpuMicroseconds = Math.round((server.cpu() - cpu) / messages);
  for (const { client } of clients) client.quit();
  return { name, messages, perSecond: Math.round(messages / seconds), cpuMicroseconds };
}

async function open(
  port: number,
  mail: Sample,
  index: number,
): Promise<{ readonly client: MilterClient; readonly message: MilterMail }> {
  const client = await MilterClient.open({ port });
  const message: MilterMail = {
    address: '192.0.2.9',
    port: 31_000 + index,
    host: 'mx.sender.example',
    helo: 'mx.sender.example',
    queueId: '',
    from: '<alice@sender.example>',
    to: ['<bob@example.org>'],
    headers: mail.headers,
    body: mail.body,
  };
  await client.begin(message);
  return { client, message };
}
