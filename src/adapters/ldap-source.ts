import { connect as connectTls } from 'node:tls';

import { Client, ResultCodeError, type Entry } from 'ldapts';

import type { Clock } from '../ports/clock.ts';
import { NeighbourError } from '../ports/neighbour-error.ts';
import {
  ConnectionPool,
  QuestionRefused,
  type PooledConnection,
  type PoolOptions,
} from './connection-pool.ts';
import { CountedSocket } from './counted-socket.ts';
import {
  isGathered,
  octetsOf,
  ROW_LIMIT,
  valuesFor,
  type DirectorySource,
  type Lookup,
  type Row,
  type SourceEvents,
  type Subject,
  type Template,
} from './directory-source.ts';

export interface LdapServer {
  readonly address:
    | { readonly kind: 'tcp'; readonly host: string; readonly port: number }
    | { readonly kind: 'unix'; readonly path: string };
  /** How the connection is encrypted: not, by StartTLS (RFC 4511 §4.14), or from its beginning (ldaps). */
  readonly tls: 'none' | 'starttls' | 'ldaps';
  /** Certificates that are trusted, PEM; null: those of the system. */
  readonly ca: string | null;
  /** null: without a name (anonymous). */
  readonly bind: { readonly dn: string; readonly password: string } | null;
}

/** What is searched for a lookup, and which attribute is which column. */
export interface LdapSearch {
  readonly base: string;
  readonly scope: 'base' | 'one' | 'sub';
  /** RFC 4515, with places for values. */
  readonly filter: Template;
  /** Column by attribute, in order. */
  readonly columns: readonly { readonly attribute: string; readonly column: string }[];
}

export type LdapSearches = Readonly<Record<Lookup, readonly LdapSearch[]>>;

/** A tree of entries behind LDAP, read with filters of the administrator's. */
export class LdapSource implements DirectorySource {
  readonly where: string;
  readonly #searches: LdapSearches;
  readonly #pool: ConnectionPool<LdapConnection>;

  constructor(
    server: LdapServer,
    where: string,
    searches: LdapSearches,
    options: PoolOptions,
    clock: Clock,
    events: SourceEvents,
  ) {
    this.where = where;
    this.#searches = searches;
    this.#pool = new ConnectionPool((signal) => LdapConnection.open(server, signal), options, clock, events);
  }

  has(lookup: Lookup): boolean {
    return this.#searches[lookup].length > 0;
  }

  async ask(lookup: Lookup, subject: Subject): Promise<readonly Row[]> {
    const gathered: Row[] = [];
    for (const search of this.#searches[lookup]) {
      const values = valuesFor(search.filter, subject);
      if (values === null) continue;
      const filter = filterText(search.filter, values);
      const rows = await this.#rows(lookup, search, filter);
      if (!isGathered(lookup) && rows.length > 0) return rows;
      gathered.push(...rows);
    }
    return gathered;
  }

  [Symbol.dispose](): void {
    this.#pool[Symbol.dispose]();
  }

  async #rows(lookup: Lookup, search: LdapSearch, filter: string): Promise<readonly Row[]> {
    try {
      const entries = await this.#pool.run((connection) => connection.search(search, filter));
      return entries.map((entry) => rowOf(search, entry));
    } catch (error) {
      throw new NeighbourError(`${this.where}, search for ${lookup}`, { cause: error });
    }
  }
}

export function filterText({ parts }: Template, values: readonly string[]): string {
  return parts.map((part, index) => (index === 0 ? part : escaped(values[index - 1] ?? '') + part)).join('');
}

/**
 * RFC 4515 §3: all of ASCII but letters, digits and what addresses usually have as \xx; nothing of a value can then mean anything. Letters beyond ASCII
 * stand for themselves: ldapts takes the octets of an escaped one for letters of their own.
 */
function escaped(value: string): string {
  return value.replaceAll(
    /[^A-Za-z0-9@._+\u0080-\u{10ffff}-]/gu,
    (character) => `\\${character.charCodeAt(0).toString(16).padStart(2, '0')}`,
  );
}

class LdapConnection implements PooledConnection {
  readonly #client: Client;
  readonly #counted: CountedSocket;
  #broken = false;

  private constructor(client: Client, counted: CountedSocket) {
    this.#client = client;
    this.#counted = counted;
    counted.socket.once('close', () => {
      this.#broken = true;
    });
  }

  static async open({ address, tls, ca, bind }: LdapServer, signal: AbortSignal): Promise<LdapConnection> {
    const counted = new CountedSocket(tls === 'none');
    const { socket } = counted;
    const host = address.kind === 'tcp' ? address.host : 'localhost';
    const secure = { host, rejectUnauthorized: true, ...(ca === null ? {} : { ca }) };
    let used = false;
    // The client would connect again by itself, without TLS and without a bind; this connection is one socket and no other.
    const once = <T>(make: () => T): T => {
      if (used) throw new Error('the connection broke');
      used = true;
      if (address.kind === 'unix') socket.connect({ path: address.path });
      else socket.connect({ host: address.host, port: address.port });
      return make();
    };
    const client = new Client({
      url: tls === 'ldaps' ? 'ldaps://directory' : 'ldap://directory',
      createConnection: () => once(() => socket),
      ...(tls === 'ldaps'
        ? { createSecureConnection: () => once(() => connectTls({ ...secure, socket })) }
        : {}),
    });
    const connection = new LdapConnection(client, counted);
    const giveUp = (): void => connection[Symbol.dispose]();
    signal.addEventListener('abort', giveUp, { once: true });
    try {
      if (tls === 'starttls') await client.startTLS(secure);
      // RFC 4513 §5.1.1: a bind without name and password is anonymous.
      await client.bind(bind?.dn ?? '', bind?.password ?? '');
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

  async search({ base, scope, columns }: LdapSearch, filter: string): Promise<readonly Entry[]> {
    this.#counted.begin();
    const attributes = columns.map(({ attribute }) => attribute);
    try {
      const { searchEntries } = await this.#client.search(base, {
        scope,
        filter,
        // RFC 4511 §4.5.1.8: "1.1" asks for no attributes.
        attributes: attributes.length === 0 ? ['1.1'] : attributes,
        // Whether there is any entry is all that is asked then.
        sizeLimit: attributes.length === 0 ? 1 : ROW_LIMIT,
      });
      return searchEntries;
    } catch (error) {
      // sizeLimitExceeded: there are more than one.
      if (attributes.length === 0 && error instanceof ResultCodeError && error.code === 4)
        return [{ dn: '' }];
      // A base that is not there holds nothing (noSuchObject); busy and unavailable (51, 52) are said of the server, not of the question.
      if (error instanceof ResultCodeError && error.code === 32) return [];
      const answered = error instanceof ResultCodeError && error.code !== 51 && error.code !== 52;
      throw answered ? new QuestionRefused(`${error.name}, result code ${error.code}`) : error;
    }
  }

  [Symbol.dispose](): void {
    this.#broken = true;
    this.#counted.socket.destroy();
  }
}

function rowOf({ columns }: LdapSearch, entry: Entry): Row {
  // RFC 4512 §2.5: names of attributes are the same in upper and lower case.
  const values = new Map(Object.entries(entry).map(([name, value]) => [name.toLowerCase(), value]));
  return new Map(
    columns.map(({ attribute, column }): [string, readonly string[]] => {
      const found = values.get(attribute.toLowerCase()) ?? [];
      const list: readonly unknown[] = Array.isArray(found) ? found : [found];
      return [column, list.map(octetsOf).filter((value) => value !== null)];
    }),
  );
}
