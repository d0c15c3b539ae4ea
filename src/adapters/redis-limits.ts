import type { Counter, CounterFilter, Hit, HitResult } from '../ports/limits.ts';
import { numberIn, picked, script, together, type RedisCalls } from './redis-calls.ts';

/** Counters that can be listed, and forgotten as a group: those that last longest from now on. Others count all the same. */
export const LISTED_COUNTERS = 100_000;
/** Longer than anybody tries to add the same again. */
const ADDED_KNOWN_MS = 3_600_000;
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

local index, longest = KEYS[#ARGV], 0

local function keep(key, c)
  local ends = c.start + 2 * c.period
  if c.algorithm == 'b' then ends = c.start + (c.most > 0 and c.current * c.period / c.most or c.period) end
  local ttl = math.max(1, math.min(math.ceil(ends - now), LONGEST))
  redis.call('SET', key, string.format('%s %.17g %.17g %.17g %.17g %.17g %.17g %.17g',
    c.algorithm, c.period, c.most, c.start, c.current, c.previous, c.over, c.time), 'PX', string.format('%.0f', ttl))
  if index then redis.call('ZADD', index, string.format('%.0f', now + ttl), key) end
  longest = math.max(longest, ttl)
end

local function tidy()
  if not index then return end
  redis.call('ZREMRANGEBYSCORE', index, '-inf', string.format('(%.0f', now))
  redis.call('ZREMRANGEBYRANK', index, 0, -LISTED - 1)
  if redis.call('PTTL', index) < longest then redis.call('PEXPIRE', index, string.format('%.0f', longest)) end
end
`;

/** KEYS: the counters, and the index, where there is one. ARGV: one text for each hit. Answers four words for each: within, used, retryMs, first. */
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
for i = 1, #ARGV - 1 do
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

/** As HIT; answers what is used then, for each. */
const REFUND = script(`${COUNT}${KEEP}
local answers = {}
for i = 1, #ARGV - 1 do
  answers[i] = '0'
  local c = held(KEYS[i])
  if c ~= nil then
    local hit = asked(ARGV[i + 1])
    fit(c, hit)
    c.previous = math.max(0, c.previous - math.max(0, hit.cost - c.current))
    c.current = math.max(0, c.current - hit.cost)
    keep(KEYS[i], c)
    answers[i] = string.format('%.0f', whole(used(c)))
  end
end
tidy()
return table.concat(answers, ' ')
`);

/** KEYS: a counter, the name of what is added, and the index, where there is one. ARGV: a text as for HIT, how long the name is known. */
const ADD = script(`${COUNT}${KEEP}
index = KEYS[3]
if redis.call('SET', KEYS[2], '1', 'NX', 'PX', ARGV[3]) then
  local hit = asked(ARGV[2])
  local c = held(KEYS[1]) or {algorithm = hit.algorithm, period = hit.period, start = now, current = 0, previous = 0, over = 0}
  fit(c, hit)
  c.current, c.time = c.current + hit.cost, now
  keep(KEYS[1], c)
  tidy()
end
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

/** KEYS: counters, and the index, where ARGV says that there is one. Answers how many there were. */
const FORGET = script(`
local index, forgotten = ARGV[2] == '1' and KEYS[#KEYS], 0
for i = 1, #KEYS - (index and 1 or 0) do
  forgotten = forgotten + redis.call('DEL', KEYS[i])
  if index then redis.call('ZREM', index, KEYS[i]) end
end
return forgotten
`);

/**
 * Counters of limits, one key each; those that count for the same have one slot.
 *
 * All keys of a step are in one script: that is what makes it all or nothing. A Cluster can't do that over several slots: there a step is one
 * script for each, all at once, and what was counted is given back when another refuses or is away. In between, others may find those counters
 * fuller than they will be, and be refused; never more than the limit is let through. A Cluster has no index either, which would have to be in the
 * slot of each counter: there the keys of all masters are looked through.
 */
export class RedisLimits {
  readonly #client: RedisCalls;
  readonly #start: string;
  readonly #index: string;

  constructor(client: RedisCalls) {
    this.#client = client;
    this.#start = `${client.prefix}limit:{`;
    this.#index = `${client.prefix}limits`;
  }

  async hit(hits: readonly Hit[]): Promise<readonly HitResult[]> {
    if (hits.length === 0) return [];
    const groups = together(this.#client, hits, (hit) => this.#key(hit.limit, hit.key));
    return groups.length === 1 ? await this.#count(hits) : await this.#countApart(hits, groups);
  }

  async refund(hits: readonly Hit[]): Promise<void> {
    if (hits.length === 0) return;
    const groups = together(this.#client, hits, (hit) => this.#key(hit.limit, hit.key));
    await Promise.all(groups.map((group) => this.#giveBack(picked(hits, group))));
  }

  /** Counts what was let through elsewhere: once, however often it is asked with the same name. */
  async add(name: string, hit: Hit): Promise<void> {
    const key = this.#key(hit.limit, hit.key);
    const added = `${this.#client.prefix}added:{${hit.key}}${name}`;
    const keys = [key, added, ...(this.#client.cluster ? [] : [this.#index])];
    await this.#client.run(ADD, keys, [written(hit), `${ADDED_KNOWN_MS}`]);
  }

  /** One script. */
  async #count(hits: readonly Hit[]): Promise<readonly HitResult[]> {
    const answer = await this.#client.run(HIT, this.#keys(hits), hits.map(written));
    const words = typeof answer === 'string' ? answer.split(' ') : [];
    if (words.length !== 4 * hits.length) throw this.#client.nonsense();
    return hits.map((_, index) => this.#result(words, 4 * index));
  }

  /** One script for each slot. */
  async #countApart(
    hits: readonly Hit[],
    groups: readonly (readonly number[])[],
  ): Promise<readonly HitResult[]> {
    const ends = await Promise.allSettled(groups.map((group) => this.#count(picked(hits, group))));
    const results: HitResult[] = [];
    const counted: number[] = [];
    let refused = false;
    let failed: PromiseRejectedResult | null = null;
    for (const [at, end] of ends.entries()) {
      if (end.status === 'rejected') {
        failed = end;
        continue;
      }
      const group = groups[at] ?? [];
      const enforced = group.filter((index) => hits[index]?.enforced === true);
      let room = true;
      for (const [place, result] of end.value.entries()) {
        const index = group[place] ?? 0;
        results[index] = result;
        if (!result.within && hits[index]?.enforced === true) room = false;
      }
      if (room) counted.push(...enforced);
      else refused = true;
    }
    if ((!refused && failed === null) || counted.length === 0) return settled(results, failed);
    const back = picked(hits, counted);
    const backs = together(this.#client, back, (hit) => this.#key(hit.limit, hit.key));
    // What can't be given back stays counted, until it lapses: that lets nothing through, and the refusal stands.
    await Promise.allSettled(
      backs.map(async (group) => {
        const left = await this.#giveBack(picked(back, group));
        for (const [place, of] of group.entries()) {
          const index = counted[of] ?? 0;
          const result = results[index];
          if (result !== undefined) results[index] = { ...result, used: left[place] ?? result.used };
        }
      }),
    );
    return settled(results, failed);
  }

  /** What is used then, for each. */
  async #giveBack(hits: readonly Hit[]): Promise<readonly number[]> {
    const answer = await this.#client.run(REFUND, this.#keys(hits), hits.map(written));
    const left = typeof answer === 'string' ? answer.split(' ').map(numberIn) : [];
    if (left.length !== hits.length || !left.every(Number.isFinite)) throw this.#client.nonsense();
    return left;
  }

  async counters(filter: CounterFilter): Promise<readonly Counter[]> {
    const found = new Map<string, Counter>();
    for await (const keys of this.#pages(filter)) {
      for (const counter of await this.#told(keys)) {
        if (filter.overOnly === true && counter.overSince === null) continue;
        found.set(this.#key(counter.limit, counter.key), counter);
      }
      // Not all that a Cluster has at once: memory is for those that are wanted.
      if (found.size > filter.count + PAGE) {
        for (const [name] of fullest(found).slice(filter.count)) found.delete(name);
      }
    }
    return fullest(found)
      .slice(0, filter.count)
      .map(([, counter]) => counter);
  }

  /** Those that are there. */
  async #told(keys: readonly string[]): Promise<readonly Counter[]> {
    const groups = together(this.#client, keys, (key) => key);
    const told = await Promise.all(
      groups.map(async (group) => {
        const asked = picked(keys, group);
        const answer = await this.#client.run(TELL, asked, []);
        if (!Array.isArray(answer) || answer.length !== asked.length) throw this.#client.nonsense();
        const texts: readonly unknown[] = answer;
        return asked.flatMap((key, index) => (texts[index] === '' ? [] : [this.#counter(key, texts[index])]));
      }),
    );
    return told.flat();
  }

  async resetCounters(filter: Pick<CounterFilter, 'limit' | 'key'>): Promise<number> {
    // All pages first: what is forgotten moves the ranks of the rest.
    const pages: (readonly string[])[] = [];
    for await (const keys of this.#pages(filter)) pages.push(keys);
    let forgotten = 0;
    for (const keys of pages) {
      for (const group of together(this.#client, keys, (key) => key)) {
        const { cluster } = this.#client;
        const gone = [...picked(keys, group), ...(cluster ? [] : [this.#index])];
        const answer = await this.#client.run(FORGET, gone, [cluster ? '0' : '1']);
        if (typeof answer !== 'number' || answer < 0) throw this.#client.nonsense();
        forgotten += answer;
      }
    }
    return forgotten;
  }

  /** Keys of the counters that a filter means, some at a time. One that is named needs no index. */
  async *#pages({ limit, key }: Pick<CounterFilter, 'limit' | 'key'>): AsyncGenerator<readonly string[]> {
    if (limit !== undefined && key !== undefined) {
      yield [this.#key(limit, key)];
      return;
    }
    const wanted = (each: string): boolean => {
      const name = this.#name(each);
      return (limit === undefined || name.limit === limit) && (key === undefined || name.key === key);
    };
    if (this.#client.cluster) {
      for await (const found of this.#client.keys(this.#start)) {
        const some = found.filter(wanted);
        if (some.length > 0) yield some;
      }
      return;
    }
    for (let from = 0; from < LISTED_COUNTERS; from += PAGE) {
      const listed = await this.#client.highest(this.#index, from, from + PAGE - 1);
      const some = listed.filter(wanted);
      if (some.length > 0) yield some;
      if (listed.length < PAGE) return;
    }
  }

  #keys(hits: readonly Hit[]): string[] {
    const keys = hits.map(({ limit, key }) => this.#key(limit, key));
    if (!this.#client.cluster) keys.push(this.#index);
    return keys;
  }

  #key(limit: string, key: string): string {
    return `${this.#start}${key}}${limit}`;
  }

  #name(key: string): { limit: string; key: string } {
    // Names of limits have no brace.
    const end = key.lastIndexOf('}');
    return { limit: key.slice(end + 1), key: key.slice(this.#start.length, end) };
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

function settled(results: readonly HitResult[], failed: PromiseRejectedResult | null): readonly HitResult[] {
  if (failed !== null) throw failed.reason;
  return results;
}

function fullest(found: ReadonlyMap<string, Counter>): [string, Counter][] {
  return [...found].toSorted(([, one], [, other]) => share(other) - share(one));
}

/** How full it is. */
function share({ used, most }: Counter): number {
  return most > 0 ? used / most : Infinity;
}
