import type { StatementSync } from 'node:sqlite';

/** A row as an array of its columns, which SQLite hands over in half the time of an object. */
export type Row = readonly unknown[];

/** For statements whose rows are read with the functions below. */
export function inColumns(statement: StatementSync): StatementSync {
  statement.setReturnArrays(true);
  return statement;
}

/** The first row; null when there is none. */
export function first(row: unknown): Row | null {
  return Array.isArray(row) ? row : null;
}

export function numberAt(row: Row, column: number): number {
  const value = row[column];
  if (typeof value !== 'number') throw new TypeError(`column ${column} is ${typeof value}, not a number`);
  return value;
}

export function textAt(row: Row, column: number): string {
  const value = row[column];
  if (typeof value !== 'string') throw new TypeError(`column ${column} is ${typeof value}, not text`);
  return value;
}

export function nullOr<T>(of: (row: Row, column: number) => T, row: Row, column: number): T | null {
  return row[column] === null ? null : of(row, column);
}
