import { NeighbourError } from '../ports/neighbour-error.ts';
import { QuestionRefused } from './connection-pool.ts';
import {
  isGathered,
  octetsOf,
  ROW_LIMIT,
  valuesFor,
  type DirectorySource,
  type Lookup,
  type Row,
  type Subject,
  type Template,
} from './directory-source.ts';

/** Where a database server is, and who we are to it. */
export interface SqlServer {
  readonly address:
    | { readonly kind: 'tcp'; readonly host: string; readonly port: number }
    | { readonly kind: 'unix'; readonly path: string };
  readonly user: string;
  /** null: the server asks for none, as over a unix socket. */
  readonly password: string | null;
  readonly database: string;
  /** null: not encrypted; `ca`: certificates that are trusted, PEM, null: those of the system. */
  readonly tls: { readonly ca: string | null } | null;
}

export interface SqlAnswer {
  readonly columns: readonly string[];
  readonly rows: readonly (readonly unknown[])[];
}

export interface SqlDatabase extends Disposable {
  /** What stands in a statement for its value number `index`, counted from 0. */
  placeholder(index: number): string;
  /** @throws {NeighbourError} */
  ask(text: string, values: readonly string[]): Promise<SqlAnswer>;
}

/** For each lookup its queries, in the order they are made in. */
export type SqlQueries = Readonly<Record<Lookup, readonly Template[]>>;

interface Statement {
  readonly text: string;
  readonly template: Template;
}

/** Tables of a database, read with queries of the administrator's. */
export class SqlSource implements DirectorySource {
  readonly where: string;
  readonly #database: SqlDatabase;
  readonly #statements: ReadonlyMap<Lookup, readonly Statement[]>;

  constructor(where: string, queries: SqlQueries, database: SqlDatabase) {
    this.where = where;
    this.#database = database;
    const prepare = (templates: readonly Template[]): Statement[] =>
      templates.map((template) => ({ template, text: statementText(template, database) }));
    this.#statements = new Map<Lookup, readonly Statement[]>([
      ['mailbox_domain', prepare(queries.mailbox_domain)],
      ['alias_domain', prepare(queries.alias_domain)],
      ['alias', prepare(queries.alias)],
      ['mailbox', prepare(queries.mailbox)],
      ['account', prepare(queries.account)],
      ['signing_key', prepare(queries.signing_key)],
    ]);
  }

  has(lookup: Lookup): boolean {
    return (this.#statements.get(lookup)?.length ?? 0) > 0;
  }

  async ask(lookup: Lookup, subject: Subject): Promise<readonly Row[]> {
    const gathered: Row[] = [];
    for (const { template, text } of this.#statements.get(lookup) ?? []) {
      const values = valuesFor(template, subject);
      if (values === null) continue;
      const rows = await this.#rows(lookup, text, values);
      if (!isGathered(lookup) && rows.length > 0) return rows;
      gathered.push(...rows);
    }
    return gathered;
  }

  [Symbol.dispose](): void {
    this.#database[Symbol.dispose]();
  }

  async #rows(lookup: Lookup, text: string, values: readonly string[]): Promise<readonly Row[]> {
    try {
      const { columns, rows } = await this.#database.ask(text, values);
      if (rows.length > ROW_LIMIT) throw new QuestionRefused(`more than ${ROW_LIMIT} rows for one key`);
      return rows.map((row) => rowOf(columns, row));
    } catch (error) {
      throw new NeighbourError(`${this.where}, query for ${lookup}`, { cause: error });
    }
  }
}

export function statementText(
  { parts }: Template,
  { placeholder }: Pick<SqlDatabase, 'placeholder'>,
): string {
  return parts.map((part, index) => (index === 0 ? part : placeholder(index - 1) + part)).join('');
}

function rowOf(columns: readonly string[], values: readonly unknown[]): Row {
  const row = new Map<string, readonly string[]>();
  for (const [index, name] of columns.entries()) {
    const value = octetsOf(values[index]);
    row.set(name.toLowerCase(), value === null ? [] : [value]);
  }
  return row;
}
