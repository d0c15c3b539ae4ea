import { HeaderList } from '../mail/header.ts';
import type { SpamScan } from '../mail/spam-scan.ts';
import type { Clock } from '../ports/clock.ts';
import { NeighbourError } from '../ports/neighbour-error.ts';
import type { ScanRequest, SpamScanner } from '../ports/scanner.ts';
import { NeighbourPool, type PoolOptions } from './neighbour-pool.ts';
import { shownSection } from './shown-section.ts';
import { BodyFault, exchange, type Exchange, type SpamdAddress } from './spamd-exchange.ts';
import { readPong, readScan, requestHead, type ScanVerb } from './spamd-wire.ts';

export interface SpamdOptions {
  /** At least one; each is a spamd that could score any message. */
  readonly addresses: readonly SpamdAddress[];
  /** Scans at once with each. More than spamd has children (`--max-children`) would wait there without a word. */
  readonly maxConcurrent: number;
  readonly connectTimeoutMs: number;
  /** The longest one of them may take for a scan; then the next one is asked. */
  readonly timeoutMs: number;
  /** Octets of an answer beyond those of the message that it gives back. */
  readonly maxResponse: number;
  /** One of them, by its place in `addresses`, began to fail, or works again. */
  readonly changed: PoolOptions['changed'];
}

/** Scans that may wait for each one that can be under way. */
const WAITING_PER_SCAN = 20;

const VERBS = {
  score: 'SYMBOLS',
  fields: 'HEADERS',
  rewriting: 'PROCESS',
} as const satisfies Record<ScanRequest['wanted'], ScanVerb>;

/** SpamAssassin's daemon, or several of them, as a scanner. One connection per request, as its protocol wants it. */
export function createSpamd(options: SpamdOptions, clock: Clock): SpamScanner {
  return new Spamd(options, clock);
}

class Spamd implements SpamScanner {
  readonly #options: SpamdOptions;
  readonly #pool: NeighbourPool<SpamdAddress>;

  constructor(options: SpamdOptions, clock: Clock) {
    this.#options = options;
    const { addresses, maxConcurrent: perMember, changed } = options;
    const waiting = addresses.length * perMember * WAITING_PER_SCAN;
    this.#pool = new NeighbourPool(addresses, { perMember, waiting, changed }, clock);
  }

  async scan(request: ScanRequest, signal: AbortSignal): Promise<SpamScan> {
    return await this.#pool.run(async (address) => await this.#scan(address, request, signal), signal);
  }

  /** Not counted among the scans: it tells whether spamd is there when all of them are under way, too. */
  async ping(signal: AbortSignal): Promise<void> {
    const head = requestHead({ verb: 'PING', contentLength: null, user: null });
    await this.#pool.probe((address) =>
      this.#ask(address, { head, body: null, bodyOctets: 0, returned: 0 }, signal, readPong),
    );
  }

  async #scan(address: SpamdAddress, request: ScanRequest, signal: AbortSignal): Promise<SpamScan> {
    const verb = VERBS[request.wanted];
    const { message, bodyOctets, user } = request;
    const preamble = new HeaderList(request.preamble).serialize();
    const section = preamble + shownSection(request);
    const contentLength = section.length + 2 + bodyOctets;
    const head = `${requestHead({ verb, contentLength, user })}${section}\r\n`;
    const returned = { SYMBOLS: 0, HEADERS: section.length, PROCESS: contentLength }[verb];
    const sent = { verb, section, preamble, bodyOctets };
    return await this.#ask(address, { head, body: message.body, bodyOctets, returned }, signal, (answer) =>
      readScan(answer, sent),
    );
  }

  async #ask<T>(
    address: SpamdAddress,
    { returned, ...request }: Pick<Exchange, 'head' | 'body' | 'bodyOctets'> & { readonly returned: number },
    signal: AbortSignal,
    read: (answer: string) => T,
  ): Promise<T> {
    const { connectTimeoutMs, timeoutMs } = this.#options;
    const maxResponse = this.#options.maxResponse + returned;
    try {
      return read(await exchange({ ...request, address, connectTimeoutMs, timeoutMs, maxResponse }, signal));
    } catch (error) {
      if (error instanceof BodyFault) throw error.cause;
      const where = address.kind === 'unix' ? address.path : `${address.host}:${address.port}`;
      throw new NeighbourError(`spamd at ${where}`, { cause: error });
    }
  }
}
