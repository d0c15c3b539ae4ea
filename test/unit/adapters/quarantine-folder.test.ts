import { mkdir, mkdtemp, readdir, readFile, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { QuarantineFolder } from '../../../src/adapters/quarantine-folder.ts';
import { QuarantineFull, type QuarantineLimits } from '../../../src/adapters/quarantine-room.ts';
import { HeaderList, parseHeaderSection } from '../../../src/mail/header.ts';
import type { Body } from '../../../src/mail/message.ts';
import type { QuarantinedMail } from '../../../src/ports/quarantine.ts';

const DAY = 86_400_000;
const LIMITS: QuarantineLimits = {
  maxAgeMs: 30 * DAY,
  maxOctets: 1024 * 1024,
  maxMessages: 100,
  leastAgeMs: DAY,
};
const HEAD = 'From: thor@valhalla.example\r\nSubject: h\xe4mmer\r\n';

let root: string;
let folder: string;
let now: number;
let limits: QuarantineLimits;
let removed: string[];
let filling: [number, number];

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'postern-quarantine-'));
  folder = join(root, 'quarantine');
  now = Math.floor(Date.now() / 1000) * 1000;
  limits = LIMITS;
  removed = [];
  filling = [0, 0];
});

afterEach(async () => {
  await rm(root, { recursive: true });
});

function open(): QuarantineFolder {
  const events = {
    filled: (messages: number, octets: number) => void (filling = [messages, octets]),
    removed: (id: string, why: string) => void removed.push(`${why} ${id}`),
  };
  return new QuarantineFolder(
    folder,
    () => limits,
    events,
    () => now,
  );
}

function bodyOf(text: string): Body {
  const octets = Buffer.from(text, 'latin1');
  return { size: octets.length, chunks: () => [octets] };
}

function mail(values: Partial<QuarantinedMail> & { text?: string } = {}): QuarantinedMail {
  const { text = 'Hail!\r\n', ...others } = values;
  const came = parseHeaderSection(HEAD);
  return {
    daemon: 'milter',
    trace: 'aaaabbbbccccdddd',
    queueId: 'QID1',
    time: now,
    direction: 'in',
    client: '192.0.2.20',
    helo: 'odin',
    login: null,
    sender: 'thor@valhalla.example',
    recipients: ['zeus@olimpus.example'],
    rule: 'virus.pua',
    why: 'x',
    score: null,
    came,
    leaves: new HeaderList([{ name: 'X-Ours', value: ' 1' }, ...came]),
    body: bodyOf(text),
    ...others,
  };
}

async function textOf(quarantine: QuarantineFolder, id: string): Promise<string> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of quarantine.content(id)) chunks.push(chunk);
  return Buffer.concat(chunks).toString('latin1');
}

async function names(): Promise<string[]> {
  return (await readdir(folder)).filter((name) => name !== '.key');
}

describe('a message', () => {
  it('is kept as it is to leave, for nobody else to read', async () => {
    const quarantine = open();
    const id = await quarantine.store(mail());
    expect(id).toMatch(/^[0-9a-f]{32}$/);
    expect(await textOf(quarantine, id)).toBe(`X-Ours: 1\r\n${HEAD}\r\nHail!\r\n`);
    expect(await quarantine.envelope(id)).toMatchObject({
      sender: 'thor@valhalla.example',
      recipients: ['zeus@olimpus.example'],
      rule: 'virus.pua',
      subject: 'h\xe4mmer',
      from: 'thor@valhalla.example',
    });
    for (const [path, mode] of [
      [folder, 0o700],
      [join(folder, '.key'), 0o600],
      [join(folder, id), 0o700],
      [join(folder, id, 'message.eml'), 0o600],
      [join(folder, id, 'envelope.json'), 0o600],
    ] as const) {
      expect((await stat(path)).mode & 0o777).toBe(mode);
    }
    expect(await names()).toEqual([id]);
  });

  it('that comes again is the same one, with another trace and queue id too', async () => {
    const quarantine = open();
    const id = await quarantine.store(mail());
    expect(await quarantine.store(mail({ trace: 'eeeeffffgggghhhh', queueId: 'QID2' }))).toBe(id);
    // Another process, and for one recipient more.
    const later = mail({ recipients: ['hera@olimpus.example', 'zeus@olimpus.example'] });
    expect(await open().store(later)).toBe(id);
    expect(await names()).toEqual([id]);
    expect((await quarantine.envelope(id))?.recipients).toEqual([
      'zeus@olimpus.example',
      'hera@olimpus.example',
    ]);
  });

  it('that comes many times at once is the same one, with all its recipients', async () => {
    const quarantine = open();
    const all = Array.from({ length: 20 }, (_, index) => `u${index}@olimpus.example`);
    const ids = await Promise.all(
      all.map((recipient) => quarantine.store(mail({ recipients: [recipient] }))),
    );
    expect(new Set(ids).size).toBe(1);
    expect(new Set((await quarantine.envelope(ids[0] ?? ''))?.recipients)).toEqual(new Set(all));
  });

  it('that differs in sender, header section or body is another one', async () => {
    const quarantine = open();
    const ids = await Promise.all([
      quarantine.store(mail()),
      quarantine.store(mail({ sender: '' })),
      quarantine.store(mail({ text: 'Hail?\r\n' })),
      quarantine.store(mail({ came: parseHeaderSection(`${HEAD}A: b\r\n`) })),
    ]);
    expect(new Set(ids).size).toBe(4);
  });

  it('that can not be written is not kept, and leaves nothing', async () => {
    const quarantine = open();
    await quarantine.prepare();
    const broken: Body = {
      size: 10,
      async *chunks() {
        yield Buffer.from('half');
        throw new Error('the spool is gone');
      },
    };
    await expect(quarantine.store(mail({ body: broken }))).rejects.toThrow('the spool is gone');
    expect(await names()).toEqual([]);
    let reads = 0;
    const lateBreak: Body = {
      size: 10,
      chunks() {
        reads++;
        if (reads === 1) return [Buffer.from('whole')];
        throw new Error('gone between the two readings');
      },
    };
    await expect(quarantine.store(mail({ body: lateBreak }))).rejects.toThrow('gone between');
    expect(await names()).toEqual([]);
  });

  it('can not be kept where something else is in the way', async () => {
    await writeFile(folder, 'a file');
    await expect(open().store(mail())).rejects.toThrow(/EEXIST|ENOTDIR/);
  });
});

describe('room', () => {
  it('is made by removing the oldest, none that is younger than least_age', async () => {
    limits = { ...LIMITS, maxMessages: 2 };
    const quarantine = open();
    const start = now;
    const first = await quarantine.store(mail({ text: '1' }));
    now = start + DAY / 2;
    const second = await quarantine.store(mail({ text: '2' }));
    expect(filling[0]).toBe(2);
    await expect(quarantine.store(mail({ text: '3' }))).rejects.toThrow(QuarantineFull);
    now = start + DAY;
    const third = await quarantine.store(mail({ text: '3' }));
    expect(removed).toEqual([`room ${first}`]);
    expect((await names()).toSorted()).toEqual([second, third].toSorted());
    await expect(quarantine.store(mail({ text: '4' }))).rejects.toThrow(QuarantineFull);
  });

  it('is counted in octets: up to the limit and no octet more', async () => {
    const size = 'X-Ours: 1\r\n'.length + HEAD.length + 2 + 'Hail!\r\n'.length;
    limits = { ...LIMITS, maxOctets: size };
    await expect(open().store(mail({ text: 'Hail!!\r\n' }))).rejects.toThrow(QuarantineFull);
    const id = await open().store(mail());
    expect(await names()).toEqual([id]);
    expect(filling).toEqual([1, size]);
  });

  it('that somebody else made is seen', async () => {
    limits = { ...LIMITS, maxMessages: 1 };
    const quarantine = open();
    const first = await quarantine.store(mail({ text: '1' }));
    await open().remove(first);
    const second = await quarantine.store(mail({ text: '2' }));
    expect(await names()).toEqual([second]);
  });
});

describe('expiry', () => {
  it('removes what is older than max_age, and what killed processes left', async () => {
    const quarantine = open();
    const old = await quarantine.store(mail({ text: '1', time: now - LIMITS.maxAgeMs - 1 }));
    const just = await quarantine.store(mail({ text: '2', time: now - LIMITS.maxAgeMs }));
    for (const [name, age] of [
      ['.new-dead', 3_600_001],
      ['.gone-dead', 3_600_001],
      ['.new-alive', 0],
    ] as const) {
      await mkdir(join(folder, name));
      const seconds = (now - age) / 1000;
      await utimes(join(folder, name), seconds, seconds);
    }
    await quarantine.expire();
    expect(removed).toEqual([`age ${old}`]);
    expect((await names()).toSorted()).toEqual(['.new-alive', just].toSorted());
    expect(filling[0]).toBe(1);
  });
});

describe('the list', () => {
  it('is in the order of time, and tells of what can not be read', async () => {
    const quarantine = open();
    const late = await quarantine.store(mail({ text: '1', time: now }));
    const early = await quarantine.store(mail({ text: '2', time: now - 1000 }));
    const broken = await quarantine.store(mail({ text: '3', time: now }));
    await writeFile(join(folder, broken, 'envelope.json'), '{"version":2}');
    const listed = await quarantine.list();
    expect(listed.map(({ id }) => id)).toEqual([broken, early, late]);
    expect(listed[0]).toMatchObject({ envelope: null });
    expect(listed[0]?.problem).not.toBe('');
    expect(await quarantine.find(late.slice(0, 6))).toEqual([late]);
    await expect(quarantine.envelope('../../etc')).rejects.toThrow('no name of a quarantined message');
  });

  it('is empty where there is no quarantine', async () => {
    expect(await open().list()).toEqual([]);
  });
});

async function arrived(quarantine: QuarantineFolder, id: string, field: string) {
  const whole = `Received: from here\r\n${field}${await textOf(quarantine, id)}`;
  const end = whole.indexOf('\r\n\r\n');
  return {
    sender: 'thor@valhalla.example',
    headers: parseHeaderSection(whole.slice(0, end + 2)),
    body: bodyOf(whole.slice(end + 4)),
  };
}

describe('a release', () => {
  it('is known by its seal, for a day', async () => {
    const quarantine = open();
    const id = await quarantine.store(mail());
    const field = await quarantine.seal(id, 'thor@valhalla.example');
    const back = await arrived(quarantine, id, field);
    expect(await quarantine.released(back)).toBe(id);
    // Another process, with the same key.
    expect(await open().released(back)).toBe(id);
    now += DAY;
    expect(await quarantine.released(back)).toBe(id);
    now += 1;
    expect(await quarantine.released(back)).toBeNull();
  });

  it('is none when anything was changed, or the seal is not on top, or of another key', async () => {
    const quarantine = open();
    const id = await quarantine.store(mail());
    const field = await quarantine.seal(id, 'thor@valhalla.example');
    const back = await arrived(quarantine, id, field);
    expect(await quarantine.released({ ...back, sender: 'loki@valhalla.example' })).toBeNull();
    expect(await quarantine.released({ ...back, body: bodyOf('Hail!\r\n ') })).toBeNull();
    const fields = back.headers.toArray();
    const [received = { name: '', value: '' }, seal = { name: '', value: '' }, ...rest] = fields;
    const tried = [
      [received, seal, { name: 'Subject', value: ' other' }, ...rest],
      [received, seal, ...rest.slice(1)],
      [received, ...rest, seal],
      [received, { name: 'X-Top', value: ' 1' }, seal, ...rest],
      [received, seal, seal, ...rest],
      [...Array.from({ length: 6 }, () => received), seal, ...rest],
    ];
    for (const list of tried) {
      expect(await quarantine.released({ ...back, headers: new HeaderList(list) })).toBeNull();
    }
    for (const value of [seal.value.replace(/s=./, 's=g'), seal.value.replace(/t=\d/, 't=9'), '', ' id=x']) {
      const headers = new HeaderList([received, { ...seal, value }, ...rest]);
      expect(await quarantine.released({ ...back, headers })).toBeNull();
    }
    await writeFile(join(folder, '.key'), `${'0'.repeat(64)}\n`);
    expect(await open().released(back)).toBeNull();
    await rm(join(folder, '.key'));
    expect(await open().released(back)).toBeNull();
  });

  it('takes off the recipients that have it; with the last one the message goes', async () => {
    const quarantine = open();
    const id = await quarantine.store(mail({ recipients: ['a@x', 'b@x'] }));
    await quarantine.settle(id, new Set(['a@x']));
    expect((await quarantine.envelope(id))?.recipients).toEqual(['b@x']);
    await quarantine.settle(id, new Set(['b@x']));
    expect(await names()).toEqual([]);
  });

  it('is made by one at a time; one that was killed is in nobody’s way for long', async () => {
    const quarantine = open();
    const id = await quarantine.store(mail());
    const first = await quarantine.claim(id);
    expect(first).not.toBeNull();
    expect(await quarantine.claim(id)).toBeNull();
    await first?.[Symbol.asyncDispose]();
    expect(await quarantine.claim(id)).not.toBeNull();
    now += 902_001;
    expect(await quarantine.claim(id)).not.toBeNull();
  });
});

it('a key that is none is an error, and is not replaced', async () => {
  await mkdir(folder);
  await writeFile(join(folder, '.key'), 'short');
  await expect(open().prepare()).rejects.toThrow('holds no key');
  expect(await readFile(join(folder, '.key'), 'latin1')).toBe('short');
});

it('several processes that begin at once have one key', async () => {
  await Promise.all(Array.from({ length: 8 }, () => open().prepare()));
  expect(await readdir(folder)).toEqual(['.key']);
});
