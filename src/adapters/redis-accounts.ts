import {
  DISTINCT_LIMIT,
  STANDINGS,
  type Sighting,
  type SightingResult,
  type Standing,
  type Tally,
} from '../ports/accounts.ts';
import { numberIn, picked, script, together, type RedisCalls } from './redis-calls.ts';
import { hoursKey, seenKey, standingsKeys } from './redis-state-keys.ts';
import { bounded, digestOf } from './state-keys.ts';
import { TALLY_AGE_MS } from './state-order.ts';

/** Hours of one subject that are kept, the newest; each as long as that after it was last counted on. */
const TALLY_HOURS = TALLY_AGE_MS / 3_600_000;
/** Logins with a standing; above that, the one that would lapse first goes. */
export const STANDINGS_LIMIT = 100_000;

/**
 * KEYS: the sets that occur. ARGV: place of the set, window and value of each sighting. A set keeps when each value was last seen, for the longest
 * window it is asked with, which is how long it still has to live.
 */
const SEEN = script(`
local lives = {}
for i, key in ipairs(KEYS) do lives[i] = redis.call('PTTL', key) end
local answers = {}
for i = 2, #ARGV, 3 do
  local place, window, value = tonumber(ARGV[i]), tonumber(ARGV[i + 1]), ARGV[i + 2]
  local key = KEYS[place]
  local since = string.format('(%.0f', now - window)
  local before = redis.call('ZSCORE', key, value)
  local fresh = not before or tonumber(before) <= now - window
  if not before or tonumber(before) < now then redis.call('ZADD', key, string.format('%.0f', now), value) end
  if lives[place] < window then
    redis.call('PEXPIRE', key, string.format('%.0f', math.max(1, window)))
    lives[place] = window
  end
  if fresh then
    redis.call('ZREMRANGEBYSCORE', key, '-inf', string.format('%.0f', now - lives[place]))
    redis.call('ZREMRANGEBYRANK', key, 0, ${-DISTINCT_LIMIT - 1})
  end
  answers[#answers + 1] = fresh and 1 or 0
  answers[#answers + 1] = redis.call('ZCOUNT', key, since, '+inf')
end
return answers
`);

/** KEYS: hours and counts of each entry. ARGV: for each, the hour, how many names, and names with counts. */
const TALLY = script(`
local at = 2
for i = 1, #KEYS, 2 do
  local hours, counts = KEYS[i], KEYS[i + 1]
  redis.call('ZADD', hours, ARGV[at], ARGV[at])
  redis.call('ZREMRANGEBYRANK', hours, 0, ${-TALLY_HOURS - 1})
  redis.call('PEXPIRE', hours, ${TALLY_AGE_MS})
  local names = tonumber(ARGV[at + 1])
  at = at + 2
  for _ = 1, names do
    redis.call('HINCRBYFLOAT', counts, ARGV[at], ARGV[at + 1])
    at = at + 2
  end
  redis.call('PEXPIRE', counts, ${TALLY_AGE_MS})
end
`);

/** KEYS: the hours of a subject, which with an hour at the end name its counts, in the same slot. ARGV: since when. Answers hour and counts by turns. */
const TALLIES = script(`
local answers = {}
for _, hour in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], ARGV[2], '+inf')) do
  local counts = redis.call('HGETALL', KEYS[1] .. hour)
  if #counts > 0 then
    answers[#answers + 1] = hour
    answers[#answers + 1] = counts
  end
end
return answers
`);

/** A standing is its rank, until when (\`-\`: without end), and the rest. */
const IN_FORCE = `
local function in_force(text)
  local rank, ends = string.match(text or '', '^(%d) (%S+) ')
  if not rank or (ends ~= '-' and tonumber(ends) <= now) then return -1 end
  return tonumber(rank)
end
`;

/** KEYS: standings, when they lapse. ARGV: login. */
const STANDING = script(`${IN_FORCE}
local text = redis.call('HGET', KEYS[1], ARGV[2])
return in_force(text) >= 0 and text
`);

/** KEYS: as above. Answers those in force. */
const ALL_STANDINGS = script(`${IN_FORCE}
local answers = {}
for _, text in ipairs(redis.call('HVALS', KEYS[1])) do
  if in_force(text) >= 0 then answers[#answers + 1] = text end
end
return answers
`);

/** KEYS: as above. ARGV: login, rank, end, text, whether it must be more severe. Answers whether it was set. */
const SET_STANDING = script(`${IN_FORCE}
local standings, lapses = KEYS[1], KEYS[2]
local login, rank, ends, text = ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]

local function forget(one)
  redis.call('HDEL', standings, one)
  redis.call('ZREM', lapses, one)
end

for _, one in ipairs(redis.call('ZRANGEBYSCORE', lapses, '-inf', string.format('%.0f', now), 'LIMIT', 0, 100)) do forget(one) end
if ARGV[6] == '1' and rank <= math.max(0, in_force(redis.call('HGET', standings, login))) then return 0 end
if rank == 0 then
  forget(login)
else
  redis.call('HSET', standings, login, text)
  redis.call('ZADD', lapses, ends == '-' and '+inf' or ends, login)
  if redis.call('ZCARD', lapses) > ${STANDINGS_LIMIT} then forget(redis.call('ZRANGE', lapses, 0, 0)[1]) end
end
return 1
`);

/** What accounts did, and how they stand. Standings have no expiry of Redis's: what an operator said has no end. */
export class RedisAccounts {
  readonly #client: RedisCalls;
  readonly #standings: readonly [string, string];

  constructor(client: RedisCalls) {
    this.#client = client;
    this.#standings = standingsKeys(client.prefix);
  }

  async seen(sightings: readonly Sighting[]): Promise<readonly SightingResult[]> {
    if (sightings.length === 0) return [];
    const results: SightingResult[] = [];
    const groups = together(this.#client, sightings, (sighting) => this.#set(sighting));
    await Promise.all(
      groups.map(async (group) => {
        const some = await this.#seenTogether(picked(sightings, group));
        for (const [place, result] of some.entries()) results[group[place] ?? 0] = result;
      }),
    );
    return results;
  }

  async #seenTogether(sightings: readonly Sighting[]): Promise<readonly SightingResult[]> {
    const places = new Map<string, number>();
    const given: string[] = [];
    for (const sighting of sightings) {
      const key = this.#set(sighting);
      const place = places.get(key) ?? places.size + 1;
      places.set(key, place);
      given.push(`${place}`, `${sighting.windowMs}`, digestOf(sighting.value));
    }
    const answer = await this.#client.run(SEEN, [...places.keys()], given);
    const words: readonly unknown[] = Array.isArray(answer) ? answer : [];
    return sightings.map((_, index) => {
      const distinct = words[2 * index + 1];
      if (typeof distinct !== 'number') throw this.#client.nonsense();
      return { fresh: words[2 * index] === 1, distinct };
    });
  }

  async tally(entries: readonly Tally[]): Promise<void> {
    if (entries.length === 0) return;
    const groups = together(this.#client, entries, ({ subject }) => this.#hours(subject));
    await Promise.all(groups.map((group) => this.#tallyTogether(picked(entries, group))));
  }

  async #tallyTogether(entries: readonly Tally[]): Promise<void> {
    const keys: string[] = [];
    const given: string[] = [];
    for (const { subject, hour, counts } of entries) {
      const hours = this.#hours(subject);
      const names = Object.entries(counts);
      keys.push(hours, `${hours}${hour}`);
      given.push(`${hour}`, `${names.length}`);
      for (const [name, count] of names) given.push(name, `${count}`);
    }
    await this.#client.run(TALLY, keys, given);
  }

  async tallies(subject: string, since: number): Promise<readonly Tally[]> {
    const answer = await this.#client.run(TALLIES, [this.#hours(subject)], [`${since}`]);
    if (!Array.isArray(answer)) throw this.#client.nonsense();
    const words: readonly unknown[] = answer;
    const found: Tally[] = [];
    for (let at = 0; at < words.length; at += 2) {
      const hour = numberIn(words[at]);
      const counts = words[at + 1];
      if (!Number.isFinite(hour) || !Array.isArray(counts)) throw this.#client.nonsense();
      found.push({ subject, hour, counts: this.#counts(counts) });
    }
    return found;
  }

  async standing(login: string): Promise<Standing | null> {
    const answer = await this.#client.run(STANDING, this.#standings, [bounded(login)]);
    return answer === null ? null : this.#read(answer);
  }

  async setStanding(standing: Standing): Promise<void> {
    await this.#put(standing, false);
  }

  async raiseStanding(standing: Standing): Promise<boolean> {
    return await this.#put(standing, true);
  }

  async standings(): Promise<readonly Standing[]> {
    const answer = await this.#client.run(ALL_STANDINGS, this.#standings, []);
    if (!Array.isArray(answer)) throw this.#client.nonsense();
    const all = answer.map((text: unknown) => this.#read(text));
    return all.toSorted((one, other) => other.since - one.since);
  }

  async #put(standing: Standing, raise: boolean): Promise<boolean> {
    const { login, kind, until } = standing;
    const answer = await this.#client.run(SET_STANDING, this.#standings, [
      bounded(login),
      `${STANDINGS.indexOf(kind)}`,
      endText(until),
      standingText(standing),
      raise ? '1' : '0',
    ]);
    if (answer !== 0 && answer !== 1) throw this.#client.nonsense();
    return answer === 1;
  }

  #set({ kind, subject }: Sighting): string {
    return seenKey(this.#client.prefix, kind, bounded(subject));
  }

  #hours(subject: string): string {
    return hoursKey(this.#client.prefix, bounded(subject));
  }

  #counts(words: readonly unknown[]): Record<string, number> {
    const counts = readCounts(words);
    if (counts === null) throw this.#client.nonsense();
    return counts;
  }

  #read(text: unknown): Standing {
    const standing = readStanding(text);
    if (standing === null) throw this.#client.nonsense();
    return standing;
  }
}

/** Names and counts by turns; null: they are not. */
export function readCounts(words: readonly unknown[]): Record<string, number> | null {
  const counts: [string, number][] = [];
  for (let at = 0; at < words.length; at += 2) {
    const name = words[at];
    const count = numberIn(words[at + 1]);
    if (typeof name !== 'string' || !Number.isFinite(count)) return null;
    counts.push([name, count]);
  }
  return Object.fromEntries(counts);
}

/** When a standing lapses, as a script reads it. */
export function endText(until: number | null): string {
  return until === null ? '-' : `${until}`;
}

export function standingText({ login, kind, why, by, since, until }: Standing): string {
  return `${STANDINGS.indexOf(kind)} ${endText(until)} ${JSON.stringify([login, why, by, since])}`;
}

/** null: it is none. */
export function readStanding(text: unknown): Standing | null {
  const [, rank = '', ends = '', rest = ''] =
    typeof text === 'string' ? (/^(\d) (\S+) (.*)$/s.exec(text) ?? []) : [];
  const kind = STANDINGS[numberIn(rank)];
  const until = ends === '-' ? null : numberIn(ends);
  let fields: unknown;
  try {
    fields = JSON.parse(rest);
  } catch {
    return null;
  }
  const words: readonly unknown[] = Array.isArray(fields) ? fields : [];
  const [login, why, by, since] = words;
  if (
    kind === undefined ||
    typeof login !== 'string' ||
    typeof why !== 'string' ||
    (by !== 'postern' && by !== 'operator') ||
    typeof since !== 'number' ||
    Number.isNaN(until)
  ) {
    return null;
  }
  return { login, kind, why, by, since, until };
}
