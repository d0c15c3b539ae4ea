import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';

import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { historyQuery, selectHistory } from '../../../src/adapters/sqlite-history.ts';
import { BatchWriter } from '../../../src/adapters/sqlite-batch.ts';
import { decisionRow } from '../../../src/adapters/sqlite-decisions.ts';
import { openDatabase, PART_BITS } from '../../../src/adapters/sqlite-schema.ts';
import type { Decision, HistoryFilter } from '../../../src/ports/store.ts';
import { decision, MORNING } from '../../support/decisions.ts';

let folder: string;
let database: DatabaseSync;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'postern-history-'));
  database = await openDatabase(folder);
});

afterEach(async () => {
  database.close();
  await rm(folder, { recursive: true });
});

function write(decisions: readonly Decision[]): void {
  new BatchWriter(database).write({ notes: [], asks: [], decisions: decisions.map(decisionRow) });
}

function found(filter: Omit<HistoryFilter, 'limit'>, limit = 5): string[] {
  return selectHistory(database, { ...filter, limit }).map(({ trace }) => trace);
}

describe('every filter has an index, or begins with the newest', () => {
  const filters: readonly [string, HistoryFilter, string][] = [
    ['trace', { trace: 't', limit: 5 }, 'INDEX decision_trace (<expr>=? AND trace=?)'],
    ['queue id', { queueId: 'q', limit: 5 }, 'INDEX decision_queue_id (<expr>=? AND queue_id=?)'],
    ['sender', { sender: 'a@b', limit: 5 }, 'INDEX decision_sender (<expr>=? AND sender_key=?)'],
    [
      'domain of the sender',
      { sender: '@b', limit: 5 },
      'INDEX decision_sender (<expr>=? AND sender_key>? AND sender_key<?)',
    ],
    [
      'recipient',
      { recipient: 'a@b', limit: 5 },
      'INDEX decision_recipient_key (<expr>=? AND recipient_key=?)',
    ],
    [
      'recipient among several',
      { recipient: 'a@b', limit: 5 },
      'SEARCH r USING PRIMARY KEY (part=? AND recipient_key=?)',
    ],
    ['client', { client: '192.0.2.1', limit: 5 }, 'INDEX decision_client (<expr>=? AND client=?)'],
    ['a verdict that is news', { verdict: 'reject', limit: 5 }, 'INDEX decision_verdict (verdict=?'],
    ['the usual verdict', { verdict: 'accept', limit: 5 }, 'SCAN d USING INDEX decision_time'],
    ['a rule', { rule: 'spf.fail', limit: 5 }, 'INDEX decision_rule (rule=?'],
    ['no rule', { rule: 'default', limit: 5 }, 'SCAN d USING INDEX decision_time'],
    ['daemon', { daemon: 'milter', limit: 5 }, 'SCAN d USING INDEX decision_time'],
    ['backscatter', { backscatter: true, limit: 5 }, 'USING INDEX decision_backscatter'],
    ['time', { since: 1, until: 2, limit: 5 }, 'INDEX decision_time (time>? AND time<?)'],
    ['nothing', { limit: 5 }, 'SCAN d USING'],
  ];
  test.each(filters)('%s', (_name, filter, wanted) => {
    const { sql, values } = historyQuery(filter);
    const plan = database.prepare(`EXPLAIN QUERY PLAN ${sql}`).all(...values);
    expect(plan.map(({ detail }) => detail).join('\n')).toContain(wanted);
  });
});

describe('several parts', () => {
  const ROWS = 2 ** PART_BITS * 2 + 100;

  test('all are looked into, the newest is first, and no more is read than was asked for', () => {
    const decisions = Array.from({ length: ROWS }, (_, n) =>
      decision({
        trace: `t${n}`,
        time: MORNING + n,
        sender: n % 4000 === 0 ? 'rare@example.com' : 'often@example.com',
        recipients:
          n % 5000 === 0 ? ['x@rare.example', 'y@rare.example'] : n % 5000 === 1 ? ['x@rare.example'] : [],
      }),
    );
    write(decisions);
    expect(found({ sender: 'rare@example.com' })).toEqual(['t8000', 't4000', 't0']);
    expect(found({ sender: '@example.com' }, 2)).toEqual([`t${ROWS - 1}`, `t${ROWS - 2}`]);
    expect(found({ recipient: 'x@rare.example' })).toEqual(['t5001', 't5000', 't1', 't0']);
    expect(found({ recipient: '@rare.example', until: MORNING + 5001 })).toEqual(['t5000', 't1', 't0']);
    expect(found({ trace: 't17' })).toEqual(['t17']);
    expect(found({ trace: 't5000', recipient: 'y@rare.example' })).toEqual(['t5000']);
    expect(found({ trace: 't5001', recipient: 'y@rare.example' })).toEqual([]);
  });

  test('one that was written late stands where its time says', () => {
    write(
      Array.from({ length: 2 ** PART_BITS + 5 }, (_, n) =>
        decision({ trace: `t${n}`, time: MORNING + 2 * n }),
      ),
    );
    write([decision({ trace: 'late', time: MORNING + 2 * 2 ** PART_BITS + 1 })]);
    expect(found({ client: '192.0.2.7' }, 6)).toEqual(['t4100', 't4099', 't4098', 't4097', 'late', 't4096']);
  });
});

test('what the first version wrote is found after the conversion', async () => {
  const old = join(folder, 'old');
  await mkdir(old);
  const before = new DatabaseSync(join(old, 'postern.sqlite'));
  before.exec(FIRST_VERSION);
  before.close();
  using converted = await openDatabase(old);
  const all = selectHistory(converted, { recipient: 'bob@example.org', limit: 5 });
  expect(all.map(({ trace, recipients }) => [trace, recipients])).toEqual([
    ['two', ['bob@example.org', 'eve@example.org']],
    ['one', ['Bob@example.org']],
  ]);
  expect(converted.prepare('SELECT trace, instance, claimed FROM trace').all()).toEqual([
    expect.objectContaining({ trace: 'abc', instance: 'i', claimed: 0 }),
  ]);
});

const INSERT = `INSERT INTO decision (id, time, trace, daemon, stage, direction, client, sender, sender_key, recipients,
  verdict, rule, why, tagged, reply, shadow, outcomes, elapsed) VALUES`;

/** The parts of it that the conversion reads. */
const FIRST_VERSION = `
  CREATE TABLE trace (id INTEGER PRIMARY KEY, trace TEXT NOT NULL UNIQUE, time INTEGER NOT NULL, session TEXT,
    sender TEXT NOT NULL, instance TEXT UNIQUE, queue_id TEXT, claimed INTEGER NOT NULL) STRICT;
  CREATE INDEX trace_time ON trace (time);
  CREATE TABLE facts (trace TEXT NOT NULL, queue_id TEXT NOT NULL, time INTEGER NOT NULL, direction TEXT NOT NULL,
    outcomes TEXT NOT NULL, PRIMARY KEY (trace, queue_id)) STRICT, WITHOUT ROWID;
  CREATE TABLE decision (id INTEGER PRIMARY KEY, time INTEGER NOT NULL, trace TEXT NOT NULL, daemon TEXT NOT NULL,
    stage TEXT NOT NULL, direction TEXT NOT NULL, queue_id TEXT, client TEXT NOT NULL, helo TEXT, login TEXT,
    sender TEXT NOT NULL, sender_key TEXT NOT NULL, recipients TEXT NOT NULL, message_id TEXT, size INTEGER,
    verdict TEXT NOT NULL, rule TEXT NOT NULL, why TEXT NOT NULL, score REAL, tagged INTEGER NOT NULL,
    reply TEXT NOT NULL, shadow TEXT NOT NULL, outcomes TEXT NOT NULL, elapsed REAL NOT NULL) STRICT;
  CREATE INDEX decision_time ON decision (time);
  CREATE INDEX decision_trace ON decision (trace);
  CREATE INDEX decision_queue_id ON decision (queue_id) WHERE queue_id IS NOT NULL;
  CREATE INDEX decision_client ON decision (client, time);
  CREATE INDEX decision_sender ON decision (sender_key, time);
  CREATE INDEX decision_verdict ON decision (verdict, time);
  CREATE INDEX decision_rule ON decision (rule, time);
  CREATE TABLE decision_recipient (recipient_key TEXT NOT NULL, decision INTEGER NOT NULL,
    PRIMARY KEY (recipient_key, decision)) STRICT, WITHOUT ROWID;
  INSERT INTO trace (trace, time, session, sender, instance, claimed) VALUES ('abc', 1, 's', 'a', 'i', 0);
  ${INSERT} (1, 10, 'one', 'policyd', 'rcpt', 'in', '192.0.2.1', '', '', '["Bob@example.org"]',
    'accept', 'default', '', 0, 'DUNNO', '[]', '[]', 1);
  ${INSERT} (2, 20, 'two', 'milter', 'message', 'in', '192.0.2.1', '', '', '["bob@example.org","eve@example.org"]',
    'accept', 'default', '', 0, 'accept', '[]', '[]', 1);
  INSERT INTO decision_recipient VALUES ('example.org@bob', 1), ('example.org@bob', 2), ('example.org@eve', 2);
  PRAGMA application_id = 1347638350;
  PRAGMA user_version = 1;
  PRAGMA journal_mode = WAL;`;
