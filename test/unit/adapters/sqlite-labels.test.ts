import { DatabaseSync } from 'node:sqlite';

import { expect, test } from 'vitest';

import { LABELS_PER_USER, LabelTable, TRIM_EVERY } from '../../../src/adapters/sqlite-labels.ts';

test('a user keeps so many labels, the newest; others lose none by it', () => {
  using database = new DatabaseSync(':memory:');
  database.exec(`CREATE TABLE label (message TEXT NOT NULL, user TEXT NOT NULL, label TEXT NOT NULL,
    time INTEGER NOT NULL, PRIMARY KEY (message, user)) STRICT, WITHOUT ROWID;
    CREATE INDEX label_user ON label (user, time)`);
  const table = new LabelTable(database);
  const count = (user: string): unknown =>
    database.prepare('SELECT count(*) AS n, min(time) AS oldest FROM label WHERE user = ?').get(user);
  database.exec(`WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < ${LABELS_PER_USER - 1})
    INSERT INTO label SELECT 'm' || i, 'zeus', 'spam', i FROM n`);
  table.write({ message: 'm', user: 'hera', label: 'ham', time: 0 });
  const write = (times: number): void => {
    for (let index = 0; index < times; index++) {
      table.write({ message: 'the same', user: 'zeus', label: 'spam', time: LABELS_PER_USER + index });
    }
  };
  write(TRIM_EVERY - 1);
  expect(count('zeus')).toEqual({ n: LABELS_PER_USER + 1, oldest: 0 });
  table.write({ message: 'the same', user: 'zeus', label: 'ham', time: 2 * LABELS_PER_USER });
  expect(count('zeus')).toEqual({ n: LABELS_PER_USER, oldest: 1 });
  for (let index = 0; index < TRIM_EVERY; index++) {
    table.write({ message: `new${index}`, user: 'zeus', label: 'spam', time: 2 * LABELS_PER_USER + index });
  }
  expect(count('zeus')).toEqual({ n: LABELS_PER_USER, oldest: TRIM_EVERY + 1 });
  expect(count('hera')).toEqual({ n: 1, oldest: 0 });
});
