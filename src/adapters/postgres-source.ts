import { dirname } from 'node:path';

import { Client, DatabaseError } from 'pg';

import type { Clock } from '../ports/clock.ts';
import {
  ConnectionPool,
  QuestionRefused,
  type PooledConnection,
  type PoolOptions,
} from './connection-pool.ts';
import { CountedSocket } from './counted-socket.ts';
import type { SourceEvents } from './directory-source.ts';
import type { SqlAnswer, SqlDatabase, SqlServer } from './sql-source.ts';

export function openPostgres(
  server: SqlServer,
  options: PoolOptions,
  clock: Clock,
  events: SourceEvents,
): SqlDatabase {
  const pool = new ConnectionPool(
    (signal) => PostgresConnection.open(server, signal),
    options,
    clock,
    events,
  );
  return {
    placeholder: (index) => `$${index + 1}`,
    ask: (text, values) => pool.run((connection) => connection.ask(text, values)),
    [Symbol.dispose]: () => pool[Symbol.dispose](),
  };
}

class PostgresConnection implements PooledConnection {
  readonly #client: Client;
  readonly #counted: CountedSocket;
  #broken = false;

  private constructor(client: Client, counted: CountedSocket) {
    this.#client = client;
    this.#counted = counted;
    const broke = (): void => {
      this.#broken = true;
    };
    client.on('error', broke);
    client.on('end', broke);
  }

  static async open(
    { address, user, password, database, tls }: SqlServer,
    signal: AbortSignal,
  ): Promise<PostgresConnection> {
    const counted = new CountedSocket(tls === null);
    const client = new Client({
      stream: () => counted.socket,
      ...(address.kind === 'unix'
        ? { host: dirname(address.path), port: portOf(address.path) }
        : { host: address.host, port: address.port }),
      user,
      database,
      // Without one of ours it would look for one in the environment and in ~/.pgpass.
      password: password ?? '',
      ssl: tls === null ? false : { rejectUnauthorized: true, ...(tls.ca === null ? {} : { ca: tls.ca }) },
      application_name: 'postern',
      // Texts as they come: a number of JavaScript's could not hold all of them.
      types: { getTypeParser: () => (text: string) => text },
    });
    const connection = new PostgresConnection(client, counted);
    const giveUp = (): void => connection[Symbol.dispose]();
    signal.addEventListener('abort', giveUp, { once: true });
    try {
      await client.connect();
      return connection;
    } catch (error) {
      giveUp();
      throw error;
    } finally {
      signal.removeEventListener('abort', giveUp);
    }
  }

  get usable(): boolean {
    return !this.#broken;
  }

  async ask(text: string, values: readonly string[]): Promise<SqlAnswer> {
    this.#counted.begin();
    try {
      // With values: parsed by the server before they are bound, never a part of the text.
      const { fields, rows } = await this.#client.query<unknown[]>({
        text,
        values: [...values],
        rowMode: 'array',
      });
      return { columns: fields.map(({ name }) => name), rows };
    } catch (error) {
      // Class 08: connection exceptions; 57P: ended by an administrator, or shutting down.
      const answered = error instanceof DatabaseError && !/^(?:08|57P)/.test(error.code ?? '08');
      throw answered ? new QuestionRefused(error.message) : error;
    }
  }

  [Symbol.dispose](): void {
    this.#broken = true;
    this.#counted.socket.destroy();
  }
}

/** The file of the socket is named by the port. PostgreSQL: unix_socket_directories. */
function portOf(path: string): number {
  return Number(/\.s\.PGSQL\.(\d{1,5})$/.exec(path)?.[1] ?? 5432);
}
