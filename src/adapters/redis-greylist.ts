import type { Correspondence, GreylistAnswer, GreylistTimes, Triplet } from '../ports/greylist.ts';
import { picked, script, together, type RedisCalls } from './redis-calls.ts';
import { correspondentKey, networkKey, tripletKey } from './redis-state-keys.ts';
import { correspondentName, tripletName } from './state-keys.ts';

/**
 * KEYS: the triplet, its network, and, on one server, the correspondence that would let it pass. ARGV: delay, window, age, passes.
 * A triplet is `w`, when it was first seen and until when a retry counts, or `p` and until when it is known; a network is how many triplets passed
 * and until when that counts; a correspondence is until when. Answers the kind and up to two numbers.
 */
const JUDGE = script(`
local delay, window, age, passes = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local triplet, network, correspondence = unpack(redis.call('MGET', unpack(KEYS)))

local passed, known_until = 0, 0
if network then
  passed, known_until = string.match(network, '^(%d+) (%S+)$')
  passed = tonumber(known_until) > now and tonumber(passed) or 0
end

local function put(key, text, ttl)
  redis.call('SET', key, text, 'PX', string.format('%.0f', math.max(1, ttl)))
end

local function network_passed(times)
  put(KEYS[2], string.format('%d %.0f', times, now + age), age)
end

if passes > 0 and passed >= passes then
  network_passed(passed)
  return {'client'}
end

local stage, time, ends = string.match(triplet or '', '^(%a)(%S+) ?(%S*)$')
if stage == 'p' and tonumber(time) > now then
  put(KEYS[1], string.format('p%.0f', now + age), age)
  return {'known'}
end
if correspondence and tonumber(correspondence) > now then return {'correspondent'} end
if stage == 'w' and tonumber(ends) > now then
  local waited = math.max(0, now - tonumber(time))
  if waited < delay then return {'wait', 0, delay - waited} end
  put(KEYS[1], string.format('p%.0f', now + age), age)
  if passes > 0 then network_passed(passed + 1) end
  return {'passed', waited}
end
put(KEYS[1], string.format('w%.0f %.0f', now, now + window), window)
return {'wait', 1, delay}
`);

/** KEYS: a correspondence. Answers whether it counts. */
const CORRESPONDS = script(`
local ends = redis.call('GET', KEYS[1])
return ends and tonumber(ends) > now and 1 or 0
`);

/** KEYS: correspondences. ARGV: how long they count. */
const CORRESPOND = script(`
local age = tonumber(ARGV[2])
local text, ttl = string.format('%.0f', now + age), string.format('%.0f', math.max(1, age))
for i = 1, #KEYS do redis.call('SET', KEYS[i], text, 'PX', ttl) end
`);

/**
 * Greylisting. Triplet and network share a slot of a Cluster. The correspondence is elsewhere; there it is asked for at the same time and has the last
 * word, so that the triplet of a correspondent is noted as one that waits, which changes nothing while the correspondence lasts.
 */
export class RedisGreylist {
  readonly #client: RedisCalls;

  constructor(client: RedisCalls) {
    this.#client = client;
  }

  async greylist(triplet: Triplet, times: GreylistTimes): Promise<GreylistAnswer> {
    const { network, sender, recipient } = triplet;
    const { prefix } = this.#client;
    const keys = [tripletKey(prefix, tripletName(triplet)), networkKey(prefix, network)];
    const correspondence = correspondentKey(prefix, correspondentName({ local: recipient, remote: sender }));
    const { delayMs, windowMs, ageMs, clientPasses } = times;
    const given = [`${delayMs}`, `${windowMs}`, `${ageMs}`, `${clientPasses}`];
    if (!this.#client.cluster) {
      return this.#read(await this.#client.run(JUDGE, [...keys, correspondence], given));
    }
    const [answer, known] = await Promise.all([
      this.#client.run(JUDGE, keys, given),
      this.#client.run(CORRESPONDS, [correspondence], []),
    ]);
    const judged = this.#read(answer);
    if (known !== 0 && known !== 1) throw this.#client.nonsense();
    const waits = judged.kind === 'wait' || judged.kind === 'passed';
    return known === 1 && waits ? { kind: 'correspondent' } : judged;
  }

  async correspond(pairs: readonly Correspondence[], ageMs: number): Promise<void> {
    if (pairs.length === 0) return;
    const keys = pairs.map((pair) => correspondentKey(this.#client.prefix, correspondentName(pair)));
    const groups = together(this.#client, keys, (key) => key);
    await Promise.all(groups.map((group) => this.#client.run(CORRESPOND, picked(keys, group), [`${ageMs}`])));
  }

  #read(answer: unknown): GreylistAnswer {
    const words: readonly unknown[] = Array.isArray(answer) ? answer : [];
    const [kind, one, other] = words;
    switch (kind) {
      case 'wait':
        if (typeof one !== 'number' || typeof other !== 'number') break;
        return { kind, first: one === 1, remainingMs: other };
      case 'passed':
        if (typeof one !== 'number') break;
        return { kind, waitedMs: one };
      case 'known':
      case 'client':
      case 'correspondent':
        return { kind };
    }
    throw this.#client.nonsense();
  }
}
