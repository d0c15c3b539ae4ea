import type { DatabaseSchema } from './sqlite-schema.ts';

/**
 * Tables that grow with what comes from outside have a row in `size` that triggers keep: counting five million rows takes seconds.
 *
 * Where people never look at a key, its digest stands for it (state-keys.ts): however long remote parties choose their
 * addresses, a row takes the same few octets.
 */
const MIGRATIONS: readonly string[] = [
  `
  CREATE TABLE size (name TEXT PRIMARY KEY, rows INTEGER NOT NULL) STRICT, WITHOUT ROWID;

  -- algorithm: 0 window, 1 bucket. Window: counts of the period that began at start, and of the one before. Bucket: what was in use at start.
  CREATE TABLE counter (
    limit_name TEXT NOT NULL,
    key TEXT NOT NULL,
    algorithm INTEGER NOT NULL,
    most REAL NOT NULL,
    period INTEGER NOT NULL,
    start INTEGER NOT NULL,
    current REAL NOT NULL,
    previous REAL NOT NULL,
    over_since INTEGER,
    time INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    PRIMARY KEY (limit_name, key)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX counter_expires ON counter (expires);

  CREATE TABLE triplet (
    digest TEXT PRIMARY KEY,
    first INTEGER NOT NULL,
    passed INTEGER NOT NULL,
    expires INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX triplet_expires ON triplet (expires);

  CREATE TABLE client (
    network TEXT PRIMARY KEY,
    passes INTEGER NOT NULL,
    expires INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX client_expires ON client (expires);

  CREATE TABLE correspondent (
    digest TEXT PRIMARY KEY,
    expires INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX correspondent_expires ON correspondent (expires);

  CREATE TABLE reservation (
    id INTEGER PRIMARY KEY,
    trace TEXT NOT NULL,
    mailbox TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    until INTEGER NOT NULL,
    UNIQUE (trace, mailbox)
  ) STRICT;
  CREATE INDEX reservation_until ON reservation (until);

  -- The sum of a mailbox's reservations, those that lapsed included until they are removed: in a flood of small messages to one
  -- mailbox none has to add up all others.
  CREATE TABLE mailbox_load (
    mailbox TEXT PRIMARY KEY,
    bytes INTEGER NOT NULL,
    reservations INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE TRIGGER reservation_made AFTER INSERT ON reservation BEGIN
    INSERT INTO mailbox_load VALUES (new.mailbox, new.bytes, 1)
      ON CONFLICT DO UPDATE SET bytes = bytes + excluded.bytes, reservations = reservations + 1;
  END;
  CREATE TRIGGER reservation_changed AFTER UPDATE OF bytes ON reservation BEGIN
    UPDATE mailbox_load SET bytes = bytes - old.bytes + new.bytes WHERE mailbox = new.mailbox;
  END;
  CREATE TRIGGER reservation_gone AFTER DELETE ON reservation BEGIN
    UPDATE mailbox_load SET bytes = bytes - old.bytes, reservations = reservations - 1 WHERE mailbox = old.mailbox;
    DELETE FROM mailbox_load WHERE mailbox = old.mailbox AND reservations = 0;
  END;

  CREATE TABLE full_mailbox (
    mailbox TEXT PRIMARY KEY,
    since INTEGER NOT NULL,
    expires INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX full_mailbox_expires ON full_mailbox (expires);

  CREATE TABLE sighting_subject (
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    sightings INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    UNIQUE (kind, subject)
  ) STRICT;
  CREATE INDEX sighting_subject_expires ON sighting_subject (expires);
  CREATE TABLE sighting (
    subject INTEGER NOT NULL,
    digest TEXT NOT NULL,
    time INTEGER NOT NULL,
    PRIMARY KEY (subject, digest)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX sighting_time ON sighting (subject, time);

  CREATE TABLE tally (
    subject TEXT NOT NULL,
    hour INTEGER NOT NULL,
    name TEXT NOT NULL,
    count REAL NOT NULL,
    PRIMARY KEY (subject, hour, name)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX tally_hour ON tally (hour);

  -- rank: place in STANDINGS.
  CREATE TABLE standing (
    login TEXT PRIMARY KEY,
    rank INTEGER NOT NULL,
    why TEXT NOT NULL,
    by_operator INTEGER NOT NULL,
    since INTEGER NOT NULL,
    until INTEGER
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX standing_until ON standing (until);
  ` +
    ['counter', 'triplet', 'client', 'correspondent', 'full_mailbox', 'sighting', 'tally', 'standing']
      .map(
        (table) => `
  INSERT INTO size VALUES ('${table}', 0);
  CREATE TRIGGER ${table}_more AFTER INSERT ON ${table} BEGIN
    UPDATE size SET rows = rows + 1 WHERE name = '${table}';
  END;
  CREATE TRIGGER ${table}_less AFTER DELETE ON ${table} BEGIN
    UPDATE size SET rows = rows - 1 WHERE name = '${table}';
  END;`,
      )
      .join(''),
];

/** What decisions rest on between messages; `PSTS`. */
export const STATE_SCHEMA: DatabaseSchema = {
  file: 'state.sqlite',
  applicationId: 0x5053_5453,
  migrations: MIGRATIONS,
  cacheKib: 16_384,
  // Rows are small, and one is as likely to change as another.
  pageSize: 1024,
  shrinks: true,
};
