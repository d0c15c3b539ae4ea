import { DnsError, type RecordType, type Resolver } from '../ports/resolver.ts';
import { questionName, type Question } from './dns-message.ts';
import { ask, askOverTcp, type DnsServer, type Reply } from './dns-transport.ts';

/** Name servers of one zone, and addresses of one server, that are asked; a zone in use has 13 at most, a server 2. */
export const SERVERS_LIMIT = 32;
export const ADDRESSES_LIMIT = 8;

/** Aliases and delegations that are followed for one question, all in all. */
export const DETOURS_LIMIT = 8;

/** Parents of a name that are looked at for its zone. */
const PARENTS_LIMIT = 32;

/** What one address of one server said. */
export interface ServerWord {
  readonly zone: string;
  /** Its name. */
  readonly server: string;
  /** null: it has none. */
  readonly address: string | null;
  readonly said:
    | { readonly kind: 'texts'; readonly texts: readonly string[] }
    /** The zone's servers do not have it themselves: those of another zone, which were asked too, do. */
    | { readonly kind: 'elsewhere'; readonly name: string }
    | { readonly kind: 'failed'; readonly why: string };
}

export type Survey =
  | { readonly kind: 'asked'; readonly words: readonly ServerWord[] }
  /** Nobody could be asked. */
  | { readonly kind: 'failed'; readonly why: string };

export interface ZoneServersOptions {
  /** The longest one server may take over UDP, and again over TCP. */
  readonly timeoutMs: number;
  /** Tests have no port 53. */
  readonly port?: number;
}

const DNS_PORT = 53;

interface Zone {
  readonly name: string;
  readonly servers: readonly string[];
}

/** A name that the servers of a zone are asked about. */
interface Errand {
  readonly name: string;
  readonly zone: Zone;
}

/** Asks every name server of a zone itself, so that neither a cache nor the one server that a resolver happened to ask is believed for all. */
export class ZoneServers {
  readonly #resolver: Resolver;
  readonly #options: ZoneServersOptions;

  /** @param resolver finds the servers and their addresses. */
  constructor(resolver: Resolver, options: ZoneServersOptions) {
    this.#resolver = resolver;
    this.#options = options;
  }

  /**
   * The TXT records of a name, as each server of its zone has them. Follows aliases and delegations.
   *
   * @param owner the domain that is asked about first. The name itself is asked of nobody but the zone's own servers: a resolver would remember
   *   for hours that it was not there yet.
   */
  async texts(name: string, owner: string, signal: AbortSignal): Promise<Survey> {
    const asked = questionName(name);
    if (asked === null) return { kind: 'failed', why: `there can be no name ${JSON.stringify(name)}` };
    const words: ServerWord[] = [];
    const seen = new Set<string>();
    const todo: Errand[] = [];
    try {
      todo.push({ name: asked, zone: await this.#zoneOf(owner, signal) });
      for (let next = todo.shift(); next !== undefined; next = todo.shift()) {
        const mark = markOf(next);
        // Several servers may say the same.
        if (seen.has(mark)) continue;
        seen.add(mark);
        if (seen.size > DETOURS_LIMIT) {
          return { kind: 'failed', why: `${name} leads over more than ${DETOURS_LIMIT} aliases and zones` };
        }
        for (const { word, detour } of await this.#askZone(next.name, next.zone, signal)) {
          words.push(word);
          if (detour === null) continue;
          const further = {
            name: detour.name,
            zone: detour.zone ?? (await this.#zoneOf(parentOf(detour.name), signal)),
          };
          // What led here was asked before: nobody would have the record in the end.
          if (seen.has(markOf(further))) return { kind: 'failed', why: `${name} leads in a circle` };
          todo.push(further);
        }
      }
    } catch (error) {
      if (error instanceof DnsError || error instanceof ZoneError)
        return { kind: 'failed', why: error.message };
      throw error;
    }
    return { kind: 'asked', words };
  }

  /** The nearest zone at or above a name, as the resolver knows it. */
  async #zoneOf(name: string, signal: AbortSignal): Promise<Zone> {
    let candidate = name.toLowerCase();
    for (let count = 0; candidate !== '' && count < PARENTS_LIMIT; count++) {
      const servers = await this.#names(candidate, 'NS', signal);
      if (servers.length > 0) return zone(candidate, servers);
      candidate = parentOf(candidate);
    }
    throw new ZoneError(`no zone of ${name} was found`);
  }

  async #names(name: string, type: RecordType, signal: AbortSignal): Promise<readonly string[]> {
    const answer = await this.#resolver.query(name, type, signal);
    if (answer.kind !== 'records') return [];
    return answer.records.flatMap((data) =>
      data.type === type && 'text' in data ? [data.text.toLowerCase()] : [],
    );
  }

  async #askZone(
    name: string,
    { name: zoneName, servers }: Zone,
    signal: AbortSignal,
  ): Promise<readonly Heard[]> {
    const heard = servers.map(async (server): Promise<readonly Heard[]> => {
      const unasked = (why: string): Heard => ({
        word: { zone: zoneName, server, address: null, said: { kind: 'failed', why } },
        detour: null,
      });
      const found = await Promise.allSettled(
        (['A', 'AAAA'] as const).map((type) => this.#names(server, type, signal)),
      );
      const addresses = found.flatMap((result) => (result.status === 'fulfilled' ? result.value : []));
      if (addresses.length === 0) {
        const failure = found.find((result) => result.status === 'rejected');
        if (failure === undefined) return [unasked('it has no address')];
        if (!(failure.reason instanceof DnsError)) throw failure.reason;
        return [unasked(`its address could not be found: ${failure.reason.message}`)];
      }
      if (addresses.length > ADDRESSES_LIMIT)
        return [unasked(`it has more than ${ADDRESSES_LIMIT} addresses`)];
      return Promise.all(
        addresses.map(async (address): Promise<Heard> => {
          const reply = await this.#askServer(address, { name, type: 'TXT', direct: true }, signal);
          const { said, detour } = wordOf(reply, name, zoneName);
          return { word: { zone: zoneName, server, address, said }, detour };
        }),
      );
    });
    return (await Promise.all(heard)).flat();
  }

  /** Over UDP, and when nothing comes back, over TCP. */
  async #askServer(host: string, question: Question, signal: AbortSignal): Promise<Reply> {
    const { timeoutMs, port = DNS_PORT } = this.#options;
    const server: DnsServer = { host, port };
    const first = await within(timeoutMs, signal, (limit) => ask(server, question, limit));
    if (first.kind !== 'silent') return first;
    const second = await within(timeoutMs, signal, (limit) => askOverTcp(server, question, limit));
    return second.kind === 'silent' ? first : second;
  }
}

/** A zone that can't be asked as it is. */
class ZoneError extends Error {}

/** What one address said, and where else must be asked because of it. */
interface Heard {
  readonly word: ServerWord;
  readonly detour: Detour | null;
}

interface Detour {
  readonly name: string;
  /** null: to be found. */
  readonly zone: Zone | null;
}

function failed(why: string): { readonly said: ServerWord['said']; readonly detour: null } {
  return { said: { kind: 'failed', why }, detour: null };
}

function wordOf(
  reply: Reply,
  name: string,
  zoneName: string,
): { readonly said: ServerWord['said']; readonly detour: Detour | null } {
  switch (reply.kind) {
    case 'servfail':
      return failed('it says SERVFAIL');
    case 'refused':
      return failed('it refuses to answer for the zone');
    case 'formerr':
      return failed('it does not understand the question');
    case 'silent':
      return failed(reply.why);
    case 'answer': {
      const { answer, direct } = reply;
      if (direct === undefined) return failed('what came is no answer');
      if (direct.alias !== null) {
        return {
          said: { kind: 'elsewhere', name: direct.alias },
          detour: { name: direct.alias, zone: null },
        };
      }
      const below = direct.referral;
      // RFC 1034 §4.3.2: a referral leads down, to a zone that the name is in; what leads elsewhere is a server that has lost the zone.
      if (below !== null && isIn(name, below.zone) && below.zone.length > zoneName.length) {
        return {
          said: { kind: 'elsewhere', name: below.zone },
          detour: { name, zone: zone(below.zone, below.servers) },
        };
      }
      if (!direct.authoritative) return failed('it does not have the zone');
      const texts =
        answer.kind === 'records'
          ? answer.records.flatMap((data) => (data.type === 'TXT' ? [data.text] : []))
          : [];
      return { said: { kind: 'texts', texts }, detour: null };
    }
  }
}

function markOf({ name, zone: { name: zoneName } }: Errand): string {
  return `${name} in ${zoneName}`;
}

function zone(name: string, servers: readonly string[]): Zone {
  const names = [...new Set(servers)].toSorted();
  if (names.length > SERVERS_LIMIT)
    throw new ZoneError(`${name} has more than ${SERVERS_LIMIT} name servers`);
  return { name, servers: names };
}

function isIn(name: string, zoneName: string): boolean {
  return name === zoneName || name.endsWith(`.${zoneName}`);
}

function parentOf(name: string): string {
  const dot = name.indexOf('.');
  return dot === -1 ? '' : name.slice(dot + 1);
}

async function within(
  ms: number,
  signal: AbortSignal,
  work: (limit: AbortSignal) => Promise<Reply>,
): Promise<Reply> {
  const limit = new AbortController();
  const timer = setTimeout(() => limit.abort(new Error(`no answer within ${ms} ms`)), ms);
  const abort = (): void => limit.abort(signal.reason);
  signal.addEventListener('abort', abort, { once: true });
  if (signal.aborted) abort();
  try {
    return await work(limit.signal);
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', abort);
  }
}
