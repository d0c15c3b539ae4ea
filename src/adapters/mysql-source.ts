import { createConnection, type Connection } from 'mysql2/promise';

import type { Clock } from '../ports/clock.ts';
import { NeighbourError } from '../ports/neighbour-error.ts';
import {
  ConnectionPool,
  QuestionRefused,
  type PooledConnection,
  type PoolOptions,
} from './connection-pool.ts';
import { CountedSocket } from './counted-socket.ts';
import type { SourceEvents } from './directory-source.ts';
import type { SqlDatabase, SqlAnswer, SqlServer } from './sql-source.ts';

/** MariaDB and MySQL. */
export function openMysql(
  server: SqlServer,
  options: PoolOptions,
  clock: Clock,
  events: SourceEvents,
): SqlDatabase {
  const pool = new ConnectionPool((signal) => MysqlConnection.open(server, signal), options, clock, events);
  return {
    placeholder: () => '?',
    ask: (text, values) => pool.run((connection) => connection.ask(text, values)),
    [Symbol.dispose]: () => pool[Symbol.dispose](),
  };
}

class MysqlConnection implements PooledConnection {
  readonly #connection: Connection;
  readonly #counted: CountedSocket;
  #broken = false;

  private constructor(connection: Connection, counted: CountedSocket) {
    this.#connection = connection;
    this.#counted = counted;
    const broke = (): void => {
      this.#broken = true;
    };
    connection.on('error', broke);
    counted.socket.once('close', broke);
  }

  static async open(
    { address, user, password, database, tls }: SqlServer,
    signal: AbortSignal,
  ): Promise<MysqlConnection> {
    const counted = new CountedSocket(tls === null);
    const { socket } = counted;
    const giveUp = (): void => void socket.destroy();
    signal.addEventListener('abort', giveUp, { once: true });
    try {
      if (address.kind === 'unix') socket.connect({ path: address.path });
      else socket.connect({ host: address.host, port: address.port });
      const connection = await createConnection({
        stream: () => socket,
        user,
        database,
        ...(password === null ? {} : { password }),
        ...(tls === null
          ? {}
          : {
              ssl: {
                rejectUnauthorized: true,
                verifyIdentity: true,
                ...(tls.ca === null ? {} : { ca: tls.ca }),
              },
            }),
        ...(address.kind === 'tcp' ? { host: address.host } : {}),
        charset: 'utf8mb4',
        // Values as texts where a number of JavaScript's could not hold them.
        supportBigNumbers: true,
        bigNumberStrings: true,
        dateStrings: true,
        jsonStrings: true,
        multipleStatements: false,
        // A server must not be able to ask for files of ours.
        flags: ['-LOCAL_FILES'],
        connectTimeout: 0,
      });
      return new MysqlConnection(connection, counted);
    } catch (error) {
      socket.destroy();
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
      // A statement that is prepared by the server: the values never become a part of its text.
      const [rows, fields] = await this.#connection.execute({ sql: text, rowsAsArray: true }, [...values]);
      if (!Array.isArray(rows) || !Array.isArray(fields))
        throw new QuestionRefused('the query gives no rows: expected a SELECT');
      return { columns: fields.map(({ name }) => name), rows: rows.map(listOf) };
    } catch (error) {
      if (error instanceof NeighbourError) throw error;
      throw refusal(error) ?? error;
    }
  }

  [Symbol.dispose](): void {
    this.#broken = true;
    this.#counted.socket.destroy();
    this.#connection.destroy();
  }
}

/** An error packet of the server's is its answer; other errors say that the connection is no good. */
function refusal(error: unknown): QuestionRefused | null {
  if (!(error instanceof Error)) return null;
  const { sqlState, fatal } = error as Error & { readonly sqlState?: unknown; readonly fatal?: unknown };
  if (typeof sqlState !== 'string' || fatal === true) return null;
  // Class 08: connection exceptions; 70100: ended by an administrator.
  return sqlState.startsWith('08') || sqlState === '70100' ? null : new QuestionRefused(error.message);
}

function listOf(row: unknown): readonly unknown[] {
  return Array.isArray(row) ? row : [];
}
