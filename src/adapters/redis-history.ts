import type { Decision, HistoryFilter } from '../ports/store.ts';
import { script, together, type RedisCalls } from './redis-calls.ts';
import { readDecision, type ReadDecision } from './redis-decision-text.ts';
import { lookupOf, matches, TERM_LENGTH } from './redis-history-terms.ts';
import { slotOf } from './redis-slots.ts';

/**
 * The record has so many shards, each with a slot of its own; a message is always in the same one. Sixteen masters of a Cluster can share
 * it. All hosts must agree on the number.
 */
export const SHARDS = 16;

/** Decisions of one part, and octets of one with its index: what one step of a search reads at most, but for one decision. */
export const PART_DECISIONS = 256;
const PART_OCTETS = 262_144;
/** Parts that one step of a search looks at, and octets that it answers with, but for one part. */
const STEP_PARTS = 32;
const STEP_OCTETS = 524_288;
/** Parts that one step of the expiry reads. */
const EXPIRE_PARTS = 8;
/** How long Redis knows what a process has written last: longer than anybody tries to write the same again. */
const WRITER_MS = 3_600_000;

/**
 * A shard is a hash: `first` and `last` part, `live` decisions, time of the `newest`, and each part by its number: "below oldest newest total live
 * octets", where no decision of an earlier part is newer than `below`. A part is a list of decisions, in the order they came, removed ones empty, and
 * its index, a text: for each term of each decision the term and its place, in six characters. All have the slot of the shard.
 */
const PARTS = `
local WIDTH = ${TERM_LENGTH + 2}

local function part_of(shard, number)
  local text = redis.call('HGET', shard, number)
  if not text then return nil end
  local below, oldest, newest, total, live, octets = string.match(text, '^(%S+) (%S+) (%S+) (%d+) (%d+) (%d+)$')
  return {below = tonumber(below), oldest = tonumber(oldest), newest = tonumber(newest), total = tonumber(total),
    live = tonumber(live), octets = tonumber(octets)}
end

local function keep(shard, number, p)
  redis.call('HSET', shard, number, string.format('%.0f %.0f %.0f %d %d %d', p.below, p.oldest, p.newest, p.total, p.live, p.octets))
end

local function drop(shard, number, p)
  redis.call('UNLINK', shard .. ':' .. number, shard .. ':' .. number .. 'i')
  redis.call('HDEL', shard, number)
  redis.call('HINCRBY', shard, 'live', -p.live)
end

local function ends(shard)
  local first, last = unpack(redis.call('HMGET', shard, 'first', 'last'))
  return tonumber(first or 1), tonumber(last or 0)
end

local function advance(shard, first, last)
  while first < last and redis.call('HEXISTS', shard, first) == 0 do first = first + 1 end
  redis.call('HSET', shard, 'first', first)
  return first
end
`;

/**
 * KEYS: shards. ARGV: who writes, the number of his writing, the most that a shard may hold; for each shard how many decisions, and of each time, text
 * and terms. What a writer has written is not written again: he can't always know.
 */
const ADD = script(`${PARTS}
local writer, serial, most = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local at = 5
for _, shard in ipairs(KEYS) do
  local count = tonumber(ARGV[at])
  at = at + 1
  local mark = shard .. ':w' .. writer
  if tonumber(redis.call('GET', mark) or 0) >= serial then
    at = at + 3 * count
  else
    local first, last = ends(shard)
    local p = part_of(shard, last)
    local texts, index = {}, {}
    local function close()
      if #texts == 0 then return end
      redis.call('RPUSH', shard .. ':' .. last, unpack(texts))
      redis.call('APPEND', shard .. ':' .. last .. 'i', table.concat(index))
      redis.call('HINCRBY', shard, 'live', #texts)
      redis.call('HSET', shard, 'newest', string.format('%.0f', math.max(p.newest, tonumber(redis.call('HGET', shard, 'newest') or 0))))
      keep(shard, last, p)
      texts, index = {}, {}
    end
    for _ = 1, count do
      local time, text, terms = tonumber(ARGV[at]), ARGV[at + 1], ARGV[at + 2]
      at = at + 3
      if not p or p.total >= ${PART_DECISIONS} or p.octets >= ${PART_OCTETS} then
        if p then close() end
        last = last + 1
        p = {below = tonumber(redis.call('HGET', shard, 'newest') or 0), oldest = time, newest = time, total = 0, live = 0, octets = 0}
        redis.call('HSET', shard, 'last', last)
      end
      local place = string.char(48 + math.floor(p.total / 16), 48 + p.total % 16)
      for term = 1, #terms, ${TERM_LENGTH} do
        index[#index + 1] = string.sub(terms, term, term + ${TERM_LENGTH - 1})
        index[#index + 1] = place
      end
      texts[#texts + 1] = text
      p.total, p.live = p.total + 1, p.live + 1
      p.octets = p.octets + #text + #terms / ${TERM_LENGTH} * WIDTH
      p.oldest, p.newest = math.min(p.oldest, time), math.max(p.newest, time)
    end
    close()
    first = advance(shard, first, last)
    while first < last and tonumber(redis.call('HGET', shard, 'live')) > most do
      drop(shard, first, part_of(shard, first))
      first = advance(shard, first, last)
    end
    -- Last: what a script did before it failed stays done.
    redis.call('SET', mark, string.format('%.0f', serial), 'PX', ${WRITER_MS})
  end
end
return 1
`);

/**
 * KEYS: a shard. ARGV: the part to begin with (0: the last), the term (empty: all), since, until, how many are wanted. Answers the part to go on with (0: there is
 * none), a time that no decision in it or in an earlier one is newer than, and decisions, the last written first.
 */
const FIND = script(`${PARTS}
local shard, number, term = KEYS[1], tonumber(ARGV[2]), ARGV[3]
local since, till, wanted = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local first, last = ends(shard)
if number == 0 or number > last then number = last end
local answers, parts, octets, below = {0, '0'}, 0, 0, 0

local function take(text)
  if text == '' then return end
  answers[#answers + 1] = text
  octets = octets + #text
end

while number >= first and parts < ${STEP_PARTS} and octets < ${STEP_OCTETS} and #answers - 2 < wanted do
  local p = part_of(shard, number)
  if p then
    parts = parts + 1
    below = p.below
    if p.live > 0 and p.newest >= since and p.oldest < till then
      local key = shard .. ':' .. number
      if term == '' then
        local texts = redis.call('LRANGE', key, 0, -1)
        for place = #texts, 1, -1 do take(texts[place]) end
      else
        local index = redis.call('GET', key .. 'i')
        local places, at = {}, string.find(index, term, 1, true)
        while at do
          if (at - 1) % WIDTH == 0 then
            local high, low = string.byte(index, at + ${TERM_LENGTH}, at + ${TERM_LENGTH + 1})
            places[#places + 1] = (high - 48) * 16 + low - 48
          end
          at = string.find(index, term, at + 1, true)
        end
        for i = #places, 1, -1 do take(redis.call('LINDEX', key, places[i])) end
      end
    end
    if below < since then number = first end
  end
  number = number - 1
end
if number >= first then
  answers[1], answers[2] = number, string.format('%.0f', below)
end
return answers
`);

/** KEYS: a shard. ARGV: before when, the part to begin with (0: the first). Answers how many went and the part to go on with; 0: none. */
const EXPIRE = script(`${PARTS}
local shard, before, number = KEYS[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local first, last = ends(shard)
if number < first then number = first end
local removed, read = 0, 0
while number <= last and read < ${EXPIRE_PARTS} do
  local p = part_of(shard, number)
  if p and p.newest < before then
    removed = removed + p.live
    drop(shard, number, p)
    read = read + 1
  elseif p and p.oldest < before then
    read = read + 1
    local key, gone, oldest = shard .. ':' .. number, 0, p.newest
    for place, text in ipairs(redis.call('LRANGE', key, 0, -1)) do
      local time = tonumber((string.match(text, '^%[(%d+)')))
      if time and time < before then
        redis.call('LSET', key, place - 1, '')
        gone = gone + 1
      elseif time then
        oldest = math.min(oldest, time)
      end
    end
    p.live, p.oldest = p.live - gone, oldest
    redis.call('HINCRBY', shard, 'live', -gone)
    keep(shard, number, p)
    removed = removed + gone
  end
  number = number + 1
end
if last > 0 then advance(shard, first, last) end
return {removed, number <= last and number or 0}
`);

/** A decision on its way to Redis. */
export interface RecordText {
  readonly shard: number;
  readonly time: number;
  readonly text: string;
  readonly terms: string;
}

/** The shard of a message. */
export function shardOf(trace: string): number {
  return slotOf(trace) % SHARDS;
}

/** Decisions in Redis: written in parts, found by terms, of bounded number. */
export class RedisHistory {
  readonly #client: RedisCalls;
  readonly #most: number;

  /** `most`: decisions that are kept, of all hosts. */
  constructor(client: RedisCalls, most: number) {
    this.#client = client;
    this.#most = Math.ceil(most / SHARDS);
  }

  /** Decisions that can be one call, as places. */
  groups(records: readonly RecordText[]): readonly (readonly number[])[] {
    return together(this.#client, records, ({ shard }) => this.#key(shard));
  }

  /** All in one call. @param serial counts up with each call of a writer; a call that is made again has the one it had */
  async write(records: readonly RecordText[], writer: string, serial: number): Promise<void> {
    const shards = Map.groupBy(records, ({ shard }) => shard);
    const given = [writer, `${serial}`, `${this.#most}`];
    for (const some of shards.values()) {
      given.push(`${some.length}`);
      for (const { time, text, terms } of some) given.push(`${time}`, text, terms);
    }
    const keys = [...shards.keys()].map((shard) => this.#key(shard));
    if ((await this.#client.run(ADD, keys, given)) !== 1) throw this.#client.nonsense();
  }

  /** Newest first. */
  async find(filter: HistoryFilter): Promise<Decision[]> {
    const shards = filter.trace === undefined ? [...Array(SHARDS).keys()] : [shardOf(filter.trace)];
    let found: ReadDecision[] = [];
    // One after another, which no caller of Redis waits behind for long, and for which the next has less to look at.
    for (const shard of shards) {
      const last = found.length < filter.limit ? undefined : found.at(-1)?.decision.time;
      const since = Math.max(filter.since ?? 0, last ?? 0);
      found = newest([...found, ...(await this.#findIn(shard, { ...filter, since }))], filter.limit);
    }
    return found.map(({ decision }) => decision);
  }

  /** Returns how many went. */
  async expire(before: number, stop: () => boolean): Promise<number> {
    let removed = 0;
    for (let shard = 0; shard < SHARDS; shard++) {
      let part = 0;
      do {
        if (stop()) return removed;
        const answer = await this.#client.run(EXPIRE, [this.#key(shard)], [`${before}`, `${part}`]);
        const words: readonly unknown[] = Array.isArray(answer) ? answer : [];
        const [gone, next] = words;
        if (typeof gone !== 'number' || typeof next !== 'number') throw this.#client.nonsense();
        removed += gone;
        part = next;
      } while (part !== 0);
    }
    return removed;
  }

  /** Decisions that come late stand in later parts than others of their time: it goes on as long as an earlier part may have a newer one. */
  async #findIn(shard: number, filter: HistoryFilter): Promise<ReadDecision[]> {
    const { since = 0, until = Number.MAX_SAFE_INTEGER, limit } = filter;
    const term = lookupOf(filter);
    let found: ReadDecision[] = [];
    let part = 0;
    do {
      const given = [`${part}`, term, `${since}`, `${until}`, `${limit}`];
      const answer = await this.#client.run(FIND, [this.#key(shard)], given);
      const words: readonly unknown[] = Array.isArray(answer) ? answer : [];
      const [next, below, ...texts] = words;
      if (typeof next !== 'number' || typeof below !== 'string') throw this.#client.nonsense();
      for (const text of texts) {
        const read = typeof text === 'string' ? readDecision(text) : null;
        if (read === null) throw this.#client.nonsense();
        if (matches(read.decision, filter)) found.push(read);
      }
      found = newest(found, limit);
      const last = found.length < limit ? undefined : found.at(-1);
      if (last !== undefined && last.decision.time > Number(below)) break;
      part = next;
    } while (part !== 0);
    return found;
  }

  #key(shard: number): string {
    return `${this.#client.prefix}history:{history.${shard}}`;
  }
}

/** Those of one millisecond in the order in which their process recorded them, the last first. */
function newest(found: readonly ReadDecision[], limit: number): ReadDecision[] {
  return found
    .toSorted((one, other) => other.decision.time - one.decision.time || other.serial - one.serial)
    .slice(0, limit);
}
