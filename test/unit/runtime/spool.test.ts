import { execFile } from 'node:child_process';
import { mkdtemp, readdir, rm, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { Spool, SpoolFull, sweepSpools } from '../../../src/runtime/spool.ts';

let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'postern-spool-'));
});

afterAll(async () => {
  await rm(folder, { recursive: true });
});

/** Bytes that differ by position, so that a swapped or doubled piece shows. */
function pattern(length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let i = 0; i < length; i++) bytes[i] = (i * 31 + (i >> 8) * 7 + (i >> 16)) & 0xff;
  return bytes;
}

async function contentOf(spool: Spool): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  for await (const part of spool.chunks()) parts.push(part);
  return Buffer.concat(parts);
}

function* pieces(content: Uint8Array, length: number): Generator<Uint8Array> {
  for (let at = 0; at < content.length; at += length) yield content.slice(at, at + length);
}

function inMemory(spool: Spool): Uint8Array[] {
  const chunks = spool.chunks();
  if (!(Symbol.iterator in chunks)) throw new Error('expected an iterable that needs no waiting');
  return [...chunks];
}

function fromFile(spool: Spool): AsyncIterator<Uint8Array> {
  const chunks = spool.chunks();
  if (!(Symbol.asyncIterator in chunks)) throw new Error('expected the file to be used');
  return chunks[Symbol.asyncIterator]();
}

async function fill(spool: Spool, content: Uint8Array, length: number): Promise<void> {
  for (const piece of pieces(content, length)) await spool.write(piece);
}

const MEMORY = 100_000;

describe('content', () => {
  for (const size of [0, 1, MEMORY - 1, MEMORY, MEMORY + 1, MEMORY + 200_000]) {
    for (const length of [700, 8191, 8192, 65_535, 150_000]) {
      test(`${size} octets in pieces of ${length}`, async () => {
        await using spool = new Spool({ memory: MEMORY, limit: 1_000_000, folder });
        const content = pattern(size);
        await fill(spool, content, length);
        expect(spool.size).toBe(size);
        expect(Buffer.compare(await contentOf(spool), content)).toBe(0);
        expect(await readdir(folder)).toEqual([]);
      });
    }
  }

  test('pieces of any size, in any order of sizes', async () => {
    const sizes = fc.array(fc.oneof(fc.nat(40), fc.nat(9000), fc.nat(70_000)), { maxLength: 20 });
    await fc.assert(
      fc.asyncProperty(sizes, fc.nat(100_000), async (lengths, memory) => {
        await using spool = new Spool({ memory, limit: 10_000_000, folder });
        const content = pattern(lengths.reduce((sum, length) => sum + length, 0));
        let at = 0;
        for (const length of lengths) await spool.write(content.slice(at, (at += length)));
        expect(Buffer.compare(await contentOf(spool), content)).toBe(0);
      }),
      { numRuns: 60 },
    );
  });

  test('what fits into memory is read without waiting', () => {
    const spool = new Spool({ memory: MEMORY, limit: MEMORY, folder });
    expect(spool.write(pattern(MEMORY))).toBeUndefined();
    expect(Buffer.compare(Buffer.concat(inMemory(spool)), pattern(MEMORY))).toBe(0);
  });

  test('one octet more than fits into memory goes to the file', async () => {
    await using spool = new Spool({ memory: MEMORY, limit: MEMORY + 1, folder });
    expect(spool.write(pattern(MEMORY - 10_000))).toBeUndefined();
    const written = spool.write(pattern(10_001));
    expect(written).toBeInstanceOf(Promise);
    await written;
    expect(Symbol.asyncIterator in spool.chunks()).toBe(true);
  });

  test('several readers at once, one of them far behind', async () => {
    await using spool = new Spool({ memory: 1000, limit: 1_000_000, folder });
    const content = pattern(500_000);
    await fill(spool, content, 65_535);
    const behind = fromFile(spool);
    const first = await behind.next();
    const [one, two] = await Promise.all([contentOf(spool), contentOf(spool)]);
    expect(Buffer.compare(one, content)).toBe(0);
    expect(Buffer.compare(two, content)).toBe(0);
    const parts: Uint8Array[] = first.done === true ? [] : [first.value];
    for await (const part of { [Symbol.asyncIterator]: () => behind }) parts.push(part);
    expect(Buffer.compare(Buffer.concat(parts), content)).toBe(0);
  });

  test('writes that nobody waited for are read back whole', async () => {
    await using spool = new Spool({ memory: 0, limit: 1_000_000, folder });
    const content = pattern(300_000);
    for (const piece of pieces(content, 30_000)) void spool.write(piece);
    expect(Buffer.compare(await contentOf(spool), content)).toBe(0);
  });

  test('single octets take the memory of their content, not of a buffer each', async () => {
    await using spool = new Spool({ memory: 200_000, limit: 200_000, folder });
    for (let i = 0; i < 200_000; i++) void spool.write(Uint8Array.of(i & 0xff));
    expect(inMemory(spool).length).toBeLessThan(16);
  });

  test('a small view does not keep its large buffer alive', async () => {
    await using spool = new Spool({ memory: 100_000, limit: 100_000, folder });
    void spool.write(new Uint8Array(1_000_000).subarray(0, 10_000));
    expect(inMemory(spool)[0]?.buffer.byteLength).toBeLessThan(100_000);
  });
});

describe('limit', () => {
  test('exactly the limit is taken, one octet more is refused and leaves the rest readable', async () => {
    await using spool = new Spool({ memory: 10, limit: 20_000, folder });
    await fill(spool, pattern(20_000), 10_000);
    expect(() => spool.write(Uint8Array.of(1))).toThrow(SpoolFull);
    expect(spool.size).toBe(20_000);
    expect(Buffer.compare(await contentOf(spool), pattern(20_000))).toBe(0);
    expect(spool.write(new Uint8Array(0))).toBeUndefined();
  });

  test('a single chunk over the limit is refused whole', () => {
    const spool = new Spool({ memory: 10, limit: 99, folder });
    expect(() => spool.write(new Uint8Array(100))).toThrow('more than 99 octets');
    expect(spool.size).toBe(0);
  });
});

describe('faults', () => {
  test('a folder that is not there is an error of the write, of what follows, and of reading', async () => {
    await using spool = new Spool({ memory: 0, limit: 1e6, folder: join(folder, 'missing') });
    await expect(spool.write(pattern(10_000))).rejects.toThrow('ENOENT');
    await expect(spool.write(pattern(10_000))).rejects.toThrow('ENOENT');
    await expect(contentOf(spool)).rejects.toThrow('ENOENT');
  });

  test('a disk that is full is an error of the write', async () => {
    // RLIMIT_FSIZE stands for the full disk: Node ignores SIGXFSZ, so the write gets EFBIG on any machine and without root.
    const script = `
      import { Spool } from ${JSON.stringify(new URL('../../../src/runtime/spool.ts', import.meta.url).href)};
      await using spool = new Spool({ memory: 0, limit: 1e8, folder: ${JSON.stringify(folder)} });
      try {
        for (let i = 0; i < 100; i++) await spool.write(new Uint8Array(65536).fill(i));
        console.log('no error');
      } catch (error) {
        console.log(error.code);
      }`;
    const command = `ulimit -f 256; exec "$0" --input-type=module -e "$1"`;
    const { stdout } = await promisify(execFile)('bash', ['-c', command, process.execPath, script]);
    expect(stdout.trim()).toBe('EFBIG');
    expect(await readdir(folder)).toEqual([]);
  });

  test('disposing twice, and while a write is under way', async () => {
    const spool = new Spool({ memory: 0, limit: 1e6, folder });
    const written = spool.write(pattern(100_000));
    await Promise.all([spool[Symbol.asyncDispose](), spool[Symbol.asyncDispose]()]);
    await written;
    expect(() => spool.write(pattern(1))).toThrow('closed');
    expect(await readdir(folder)).toEqual([]);
  });

  test('a reader whose spool goes away is told', async () => {
    const spool = new Spool({ memory: 0, limit: 1e6, folder });
    await fill(spool, pattern(300_000), 65_536);
    const reader = fromFile(spool);
    await reader.next();
    await spool[Symbol.asyncDispose]();
    await expect(reader.next()).rejects.toThrow('closed while it was read');
  });
});

test('what a killed process left between making and unlinking is swept, and nothing else', async () => {
  const own = await mkdtemp(join(tmpdir(), 'postern-sweep-'));
  try {
    const old = `spool-${'0a'.repeat(12)}`;
    const young = `spool-${'1b'.repeat(12)}`;
    const others = ['spool-notes', 'postern.sqlite', `spool-${'0A'.repeat(12)}`];
    for (const name of [old, young, ...others]) await writeFile(join(own, name), '');
    const past = new Date(Date.now() - 61_000);
    for (const name of [old, ...others]) await utimes(join(own, name), past, past);
    await sweepSpools(own);
    expect((await readdir(own)).toSorted()).toEqual([young, ...others].toSorted());
  } finally {
    await rm(own, { recursive: true });
  }
});
