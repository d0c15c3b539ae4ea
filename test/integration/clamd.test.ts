import { afterAll, beforeAll, expect, it } from 'vitest';

import { systemClock } from '../../src/cli/clock.ts';
import { createClamd, type ClamdAddress, type ClamdOptions } from '../../src/adapters/clamd.ts';
import { NeighbourError } from '../../src/ports/neighbour-error.ts';
import type { VirusAnswer, VirusScanner } from '../../src/ports/virus-scanner.ts';
import {
  EICAR,
  EICAR_NAME,
  startClamd,
  UNWANTED,
  UNWANTED_NAME,
  type Clamd,
} from '../support/neighbours/clamd.ts';
import { describeWithNeighbours } from '../support/with-neighbours.ts';

const PATIENCE_MS = 30_000;
const KIB = 1024;
/** Octets that clamd takes. */
const STREAM_MAX = 1024 * KIB;

function tcp({ host, port }: Clamd): ClamdAddress {
  return { kind: 'tcp', host, port };
}

function unix({ socketPath }: Clamd): ClamdAddress {
  return { kind: 'unix', path: socketPath };
}

function scanner(
  addresses: readonly ClamdAddress[],
  changed: ClamdOptions['changed'] = () => {},
): VirusScanner {
  return createClamd({ addresses, maxConcurrent: 4, connectTimeoutMs: 5000, changed }, systemClock);
}

async function scan(
  using: VirusScanner,
  chunks: readonly Uint8Array[],
  patienceMs = PATIENCE_MS,
): Promise<VirusAnswer> {
  const given = using.begin(patienceMs, AbortSignal.timeout(60_000));
  for (const chunk of chunks) await given.write(chunk);
  return await given.end();
}

const HEAD = Buffer.from('From: thor@valhalla.example\r\nSubject: hammer\r\nMIME-Version: 1.0\r\n', 'latin1');
const TEXT = Buffer.from('Content-Type: text/plain\r\n\r\n', 'latin1');
const ATTACHED = Buffer.from(
  'Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n' +
    'Content-Disposition: attachment; filename=eicar.com\r\n\r\n',
);

function whole(size: number): Buffer[] {
  const body = Buffer.alloc(size, 'x');
  return Array.from({ length: Math.ceil(size / 65_535) }, (_, i) =>
    body.subarray(i * 65_535, (i + 1) * 65_535),
  );
}

describeWithNeighbours('clamd', () => {
  let clamd: Clamd;

  beforeAll(async () => {
    clamd = await startClamd({ streamMaxLength: STREAM_MAX });
  });

  afterAll(async () => {
    await clamd.stop();
  });

  it('answers ping, over TCP and over its unix socket', async () => {
    const signal = AbortSignal.timeout(10_000);
    await expect(scanner([tcp(clamd)]).ping(signal)).resolves.toBeUndefined();
    await expect(scanner([unix(clamd)]).ping(signal)).resolves.toBeUndefined();
  });

  it.each(['tcp', 'unix'] as const)('finds EICAR as text and in an attachment, over %s', async (kind) => {
    const using = scanner([kind === 'tcp' ? tcp(clamd) : unix(clamd)]);
    const encoded = Buffer.from(`${Buffer.from(EICAR).toString('base64')}\r\n`);
    expect(await scan(using, [HEAD, TEXT, Buffer.from(`${EICAR}\r\n`)])).toEqual({
      kind: 'found',
      signature: `${EICAR_NAME}.UNOFFICIAL`,
    });
    expect(await scan(using, [HEAD, ATTACHED, encoded])).toMatchObject({ kind: 'found' });
    expect(await scan(using, [HEAD, TEXT, Buffer.from('Hail!\r\n')])).toEqual({ kind: 'clean' });
  });

  it('finds it however it is cut', async () => {
    const using = scanner([unix(clamd)]);
    const bytes = Array.from(Buffer.concat([HEAD, TEXT, Buffer.from(EICAR)]), (octet) => Buffer.of(octet));
    expect(await scan(using, bytes)).toMatchObject({ kind: 'found' });
  });

  it('tells an unwanted program by its name', async () => {
    const answer = await scan(scanner([tcp(clamd)]), [HEAD, TEXT, Buffer.from(UNWANTED)]);
    expect(answer).toEqual({ kind: 'found', signature: `${UNWANTED_NAME}.UNOFFICIAL` });
  });

  it.each(['tcp', 'unix'] as const)('takes StreamMaxLength and no octet more, over %s', async (kind) => {
    const using = scanner([kind === 'tcp' ? tcp(clamd) : unix(clamd)]);
    expect(await scan(using, whole(STREAM_MAX))).toEqual({ kind: 'clean' });
    expect(await scan(using, whole(STREAM_MAX + 1))).toEqual({ kind: 'too-large' });
    // Much is still on its way when clamd has had enough and closes.
    for (let attempt = 0; attempt < 20; attempt++) {
      expect(await scan(using, whole(4 * STREAM_MAX))).toEqual({ kind: 'too-large' });
    }
  });

  it('asks the other one when the first is not there, and tells of it', async () => {
    await using gone = await startClamd();
    const dead = unix(gone);
    await gone.stop();
    const heard: string[] = [];
    const using = scanner([dead, tcp(clamd)], (place, works) => heard.push(`${place} ${works}`));
    expect(await scan(using, [HEAD, TEXT, Buffer.from(EICAR)])).toMatchObject({ kind: 'found' });
    // Left alone from now on.
    expect(await scan(using, [HEAD, TEXT])).toEqual({ kind: 'clean' });
    expect(heard).toEqual(['0 false']);
  });

  it('is waited for as long as there is patience', async () => {
    await using frozen = await startClamd();
    frozen.freeze();
    const begun = performance.now();
    const using = scanner([unix(frozen)]);
    // More than the kernel keeps for it, so that it is the writing that waits.
    const much = Array.from({ length: 64 }, () => Buffer.alloc(65_535, 'x'));
    expect(await scan(using, [HEAD, TEXT, ...much], 300)).toEqual({ kind: 'timeout' });
    expect(await scan(using, [HEAD, TEXT], 300)).toEqual({ kind: 'timeout' });
    expect(performance.now() - begun).toBeLessThan(5000);
  });

  it('that is killed in the middle of a message could not be asked', async () => {
    await using victim = await startClamd();
    const given = scanner([unix(victim)]).begin(PATIENCE_MS, AbortSignal.timeout(60_000));
    await given.write(HEAD);
    await given.write(TEXT);
    await victim.kill();
    await given.write(Buffer.alloc(200_000, 'x'));
    await expect(given.end()).rejects.toThrow(NeighbourError);
  });
});
