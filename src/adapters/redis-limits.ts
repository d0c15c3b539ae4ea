import type { Counter, CounterFilter, Hit, HitResult } from '../ports/limits.ts';
import { numberIn, script, type RedisClient } from './redis-client.ts';

/** Counters that can be listed, and forgotten as a group: those that last longest from now on. Others count all the same. */
export const LISTED_COUNTERS = 100_000;
/** Counters that one call reads or forgets: a few milliseconds of Redis. */
const PAGE = 1000;

/**
 * The arithmetic of limit-arithmetic.ts, in Lua: there the reasons stand. A counter is one text. What it comes to is worked out for the time of the
 * script, and never rests on Redis having removed something.
 */
const COUNT = `
local ROUNDING, RELIEF = 1e-6, 0.5

local function roll(c)
  local elapsed = now - c.start
  if c.algorithm == 'b' then
    if elapsed < 0 and elapsed > -c.period then return end
    c.current = math.max(0, c.current - math.max(0, elapsed) * c.most / c.period)
    c.start = now
    return
  end
  if elapsed >= c.period and elapsed < 2 * c.period then
    c.start, c.previous, c.current = c.start + c.period, c.current, 0
  elseif elapsed >= 2 * c.period or elapsed <= -c.period then
    c.previous, c.current = 0, 0
  end
  if c.current == 0 and c.previous == 0 then c.start = now end
end

local function used(c)
  if c.algorithm == 'b' then return c.current end
  return c.current + c.previous * (c.period - math.max(0, now - c.start)) / c.period
end

local function whole(amount)
  return math.max(0, math.ceil(amount - ROUNDING))
end

local function held(key)
  local text = redis.call('GET', key)
  if not text then return nil end
  local algorithm, period, most, start, current, previous, over, time =
    string.match(text, '^(%a) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+)$')
  local c = {algorithm = algorithm, period = tonumber(period), most = tonumber(most), start = tonumber(start),
    current = tonumber(current), previous = tonumber(previous), over = tonumber(over), time = tonumber(time)}
  roll(c)
  return c
end
`;

const KEEP = `
local LONGEST, LISTED = 31622400000, ${LISTED_COUNTERS}

local function asked(text)
  local algorithm, most, period, cost, enforced = string.match(text, '^(%a) (%S+) (%S+) (%S+) (%d)$')
  return {algorithm = algorithm, most = tonumber(most), period = tonumber(period), cost = tonumber(cost), enforced = enforced == '1'}
end

local function fit(c, hit)
  if c.algorithm ~= hit.algorithm or c.period ~= hit.period then
    c.current, c.previous, c.start = used(c), 0, now
    c.algorithm, c.period = hit.algorithm, hit.period
  end
  c.most = hit.most
end

local index, longest = KEYS[#KEYS], 0

local function keep(key, c)
  local ends = c.start + 2 * c.period
  if c.algorithm == 'b' then ends = c.start + (c.most > 0 and c.current * c.period / c.most or c.period) end
  local ttl = math.max(1, math.min(math.ceil(ends - now), LONGEST))
  redis.call('SET', key, string.format('%s %.17g %.17g %.17g %.17g %.17g %.17g %.17g',
    c.algorithm, c.period, c.most, c.start, c.current, c.previous, c.over, c.time), 'PX', string.format('%.0f', ttl))
  redis.call('ZADD', index, string.format('%.0f', now + ttl), key)
  longest = math.max(longest, ttl)
end

local function tidy()
  redis.call('ZREMRANGEBYSCORE', index, '-inf', string.format('(%.0f', now))
  redis.call('ZREMRANGEBYRANK', index, 0, -LISTED - 1)
  if redis.call('PTTL', index) < longest then redis.call('PEXPIRE', index, string.format('%.0f', longest)) end
end
`;

/** KEYS: the counters, the index. ARGV: one text for each hit. Answers four words for each: within, used, retryMs, first. */
const HIT = script(`${COUNT}${KEEP}
local function until_room(c, cost)
  if cost > c.most or c.most <= 0 then return c.period end
  local wait
  if c.algorithm == 'b' then
    wait = (c.current + cost - c.most) * c.period / c.most
  else
    local left = c.period - math.max(0, now - c.start)
    local room = c.most - cost - c.current
    if room >= 0 then wait = left - room * c.period / c.previous
    else wait = left + c.period - (c.most - cost) * c.period / c.current end
  end
  return math.max(1, math.ceil(wait))
end

local counts, tries, answers, refused = {}, {}, {}, false
for i = 1, #KEYS - 1 do
  local key, hit = KEYS[i], asked(ARGV[i + 1])
  local c = counts[key]
  if c == nil then
    c = held(key) or {algorithm = hit.algorithm, period = hit.period, start = now, current = 0, previous = 0, over = 0}
    counts[key] = c
  end
  fit(c, hit)
  local before = used(c)
  local within = before + hit.cost <= c.most + ROUNDING
  local retry = within and 0 or until_room(c, hit.cost)
  if within or not hit.enforced then c.current = c.current + hit.cost else refused = true end
  tries[i] = {c = c, hit = hit, before = before, within = within, after = whole(used(c)), retry = retry}
end
if refused then
  for _, try in ipairs(tries) do
    if try.within and try.hit.enforced then try.c.current = try.c.current - try.hit.cost end
  end
end
for i, try in ipairs(tries) do
  local c, within = try.c, try.within
  local counted = not (refused and try.hit.enforced)
  local first = not within and c.over == 0
  if first then c.over = now
  elseif within and counted and try.before <= c.most * RELIEF then c.over = 0 end
  c.changed = c.changed or counted or first
  answers[i] = string.format('%d %.0f %.0f %d', within and 1 or 0, refused and whole(used(c)) or try.after, try.retry, first and 1 or 0)
end
for key, c in pairs(counts) do
  if c.changed then
    c.time = now
    keep(key, c)
  end
end
tidy()
return table.concat(answers, ' ')
`);

/** As HIT; answers nothing. */
const REFUND = script(`${COUNT}${KEEP}
for i = 1, #KEYS - 1 do
  local c = held(KEYS[i])
  if c ~= nil then
    local hit = asked(ARGV[i + 1])
    fit(c, hit)
    c.previous = math.max(0, c.previous - math.max(0, hit.cost - c.current))
    c.current = math.max(0, c.current - hit.cost)
    keep(KEYS[i], c)
  end
end
tidy()
`);

/** KEYS: counters. Answers one text for each, empty for those that are back to nothing. */
const TELL = script(`${COUNT}
local answers = {}
for i, key in ipairs(KEYS) do
  local c = held(key)
  local amount = c and whole(used(c)) or 0
  if amount > 0 and used(c) <= c.most * RELIEF then c.over = 0 end
  answers[i] = amount == 0 and '' or
    string.format('%s %.17g %.17g %.0f %.0f %.0f', c.algorithm, c.most, c.period, amount, c.over, c.time)
end
return answers
`);

/** KEYS: counters, the index. Answers how many there were. */
const FORGET = script(`
local index, forgotten = KEYS[#KEYS], 0
for i = 1, #KEYS - 1 do
  forgotten = forgotten + redis.call('DEL', KEYS[i])
  redis.call('ZREM', index, KEYS[i])
end
return forgotten
`);

/**
 * Counters of limits, one key each.
 *
 * All keys of a step are in one script: that is what makes it all or nothing on one server. A Cluster has them in different slots; there a
 * step will be one script for each slot, and those that counted are given back (REFUND) when a later one refuses. The index is on its own
 * in any case.
 */
export class RedisLimits {
  readonly #client: RedisClient;
  readonly #start: string;
  readonly #index: string;

  constructor(client: RedisClient) {
    this.#client = client;
    this.#start = `${client.prefix}limit:{`;
    this.#index = `${client.prefix}limits`;
  }

  async hit(hits: readonly Hit[]): Promise<readonly HitResult[]> {
    if (hits.length === 0) return [];
    const answer = await this.#client.run(HIT, this.#keys(hits), hits.map(written));
    const words = typeof answer === 'string' ? answer.split(' ') : [];
    if (words.length !== 4 * hits.length) throw this.#client.nonsense();
    return hits.map((_, index) => this.#result(words, 4 * index));
  }

  async refund(hits: readonly Hit[]): Promise<void> {
    if (hits.length > 0) await this.#client.run(REFUND, this.#keys(hits), hits.map(written));
  }

  async counters(filter: CounterFilter): Promise<readonly Counter[]> {
    const found = new Map<string, Counter>();
    for await (const keys of this.#pages(filter)) {
      const answer = await this.#client.run(TELL, keys, []);
      if (!Array.isArray(answer) || answer.length !== keys.length) throw this.#client.nonsense();
      for (const [index, key] of keys.entries()) {
        const text: unknown = answer[index];
        if (text === '') continue;
        const counter = this.#counter(key, text);
        if (filter.overOnly !== true || counter.overSince !== null) found.set(key, counter);
      }
    }
    return [...found.values()].toSorted((one, other) => share(other) - share(one)).slice(0, filter.count);
  }

  async resetCounters(filter: Pick<CounterFilter, 'limit' | 'key'>): Promise<number> {
    // All pages first: what is forgotten moves the ranks of the rest.
    const pages: (readonly string[])[] = [];
    for await (const keys of this.#pages(filter)) pages.push(keys);
    let forgotten = 0;
    for (const keys of pages) {
      const answer = await this.#client.run(FORGET, [...keys, this.#index], []);
      if (typeof answer !== 'number' || answer < 0) throw this.#client.nonsense();
      forgotten += answer;
    }
    return forgotten;
  }

  /** Keys of the counters that a filter means, some at a time. One that is named needs no index. */
  async *#pages({ limit, key }: Pick<CounterFilter, 'limit' | 'key'>): AsyncGenerator<readonly string[]> {
    if (limit !== undefined && key !== undefined) {
      yield [this.#key(limit, key)];
      return;
    }
    for (let from = 0; from < LISTED_COUNTERS; from += PAGE) {
      const listed = await this.#client.highest(this.#index, from, from + PAGE - 1);
      const wanted = listed.filter((each) => {
        const name = this.#name(each);
        return (limit === undefined || name.limit === limit) && (key === undefined || name.key === key);
      });
      if (wanted.length > 0) yield wanted;
      if (listed.length < PAGE) return;
    }
  }

  #keys(hits: readonly Hit[]): string[] {
    const keys = hits.map(({ limit, key }) => this.#key(limit, key));
    keys.push(this.#index);
    return keys;
  }

  #key(limit: string, key: string): string {
    return `${this.#start}${limit}|${key}}`;
  }

  #name(key: string): { limit: string; key: string } {
    const inner = key.slice(this.#start.length, -1);
    const bar = inner.indexOf('|');
    return { limit: inner.slice(0, bar), key: inner.slice(bar + 1) };
  }

  #result(words: readonly string[], at: number): HitResult {
    const used = numberIn(words[at + 1]);
    const retryMs = numberIn(words[at + 2]);
    if (!Number.isFinite(used + retryMs)) throw this.#client.nonsense();
    return { within: words[at] === '1', used, retryMs, first: words[at + 3] === '1' };
  }

  #counter(key: string, text: unknown): Counter {
    const words = typeof text === 'string' ? text.split(' ') : [];
    const [algorithm = ''] = words;
    const [most = NaN, periodMs = NaN, used = NaN, over = NaN, time = NaN] = words.slice(1).map(numberIn);
    if (!Number.isFinite(most + periodMs + used + over + time)) throw this.#client.nonsense();
    return {
      ...this.#name(key),
      algorithm: algorithm === 'b' ? 'bucket' : 'window',
      most,
      periodMs,
      used,
      overSince: over === 0 ? null : over,
      time,
    };
  }
}

function written({ algorithm, most, periodMs, cost, enforced }: Hit): string {
  return `${algorithm === 'bucket' ? 'b' : 'w'} ${most} ${periodMs} ${cost} ${enforced ? 1 : 0}`;
}

/** How full it is. */
function share({ used, most }: Counter): number {
  return most > 0 ? used / most : Infinity;
}
