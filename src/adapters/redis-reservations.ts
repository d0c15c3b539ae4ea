import type { Claim, ClaimResult, Reservation } from '../ports/quota.ts';
import { numberIn, picked, script, together, type RedisCalls } from './redis-calls.ts';
import { fullKey, heldKeys, messageKey } from './redis-state-keys.ts';
import { bounded } from './state-keys.ts';

/** As many of a mailbox are told, those that lapse first. */
const LISTED_RESERVATIONS = 10_000;
/** A mailbox that nobody asked about for so long is not full without a break. */
const FULL_MEMORY_MS = 30 * 86_400_000;

/**
 * Of a mailbox: a hash with the octets of each message, and their sum under the empty name (so that a flood of small messages does not make each of
 * them add up all others); and a sorted set with when each lapses.
 */
const SWEEP = `
local function sweep(held, lapses)
  local sum = tonumber(redis.call('HGET', held, '') or 0)
  local over = redis.call('ZRANGEBYSCORE', lapses, '-inf', string.format('%.0f', now))
  for _, trace in ipairs(over) do
    sum = sum - (tonumber(redis.call('HGET', held, trace) or 0))
    redis.call('HDEL', held, trace)
    redis.call('ZREM', lapses, trace)
  end
  if #over > 0 then redis.call('HSET', held, '', string.format('%.0f', sum)) end
  return sum
end
`;

/** KEYS: hash and set of each mailbox. ARGV: trace, hold, then the numbers of each claim. */
const RESERVE = script(`${SWEEP}
local trace, hold = ARGV[2], tonumber(ARGV[3])

local function last(key)
  if redis.call('PTTL', key) < hold then redis.call('PEXPIRE', key, string.format('%.0f', math.max(1, hold))) end
end

local answers = {}
for i = 1, #KEYS / 2 do
  local held, lapses = KEYS[2 * i - 1], KEYS[2 * i]
  local sum = sweep(held, lapses)
  local others = sum - (tonumber(redis.call('HGET', held, trace) or 0))
  local bytes, used, limit, grace = string.match(ARGV[i + 3], '^(%S+) (%S+) (%S+) (%S+)$')
  bytes, used, limit, grace = tonumber(bytes), tonumber(used), tonumber(limit), tonumber(grace)
  local taken = used + others
  local granted = limit == nil or (taken < limit and taken + bytes <= limit + grace)
  if granted then
    redis.call('HSET', held, trace, string.format('%.0f', bytes), '', string.format('%.0f', others + bytes))
    redis.call('ZADD', lapses, string.format('%.0f', now + hold), trace)
    last(held)
    last(lapses)
  end
  answers[2 * i - 1] = granted and 1 or 0
  answers[2 * i] = others
end
return answers
`);

/** KEYS: the mailboxes that a message may hold room in. ARGV: how long, then mailboxes. */
const REMEMBER = script(`
for i = 3, #ARGV do redis.call('SADD', KEYS[1], ARGV[i]) end
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[2]) then
  redis.call('PEXPIRE', KEYS[1], string.format('%.0f', math.max(1, tonumber(ARGV[2]))))
end
`);

/** KEYS: the sets of mailboxes. ARGV: trace, how long it lingers. */
const SETTLE = script(`
local trace, ends = ARGV[2], now + tonumber(ARGV[3])
for _, lapses in ipairs(KEYS) do
  local old = redis.call('ZSCORE', lapses, trace)
  if old and tonumber(old) > ends then redis.call('ZADD', lapses, string.format('%.0f', ends), trace) end
end
`);

/** KEYS: hash and set of a mailbox. Answers trace, octets and end of each. */
const TELL = script(`
local answers = {}
local traces = redis.call('ZRANGEBYSCORE', KEYS[2], string.format('(%.0f', now), '+inf', 'WITHSCORES', 'LIMIT', 0, ${LISTED_RESERVATIONS})
for i = 1, #traces, 2 do
  answers[#answers + 1] = traces[i]
  answers[#answers + 1] = redis.call('HGET', KEYS[1], traces[i]) or '0'
  answers[#answers + 1] = traces[i + 1]
end
return answers
`);

/** KEYS: since when a mailbox is full, and until when that is remembered. ARGV: whether it is full now. */
const FULL = script(`
if ARGV[2] == '0' then
  redis.call('DEL', KEYS[1])
  return false
end
local since, ends = string.match(redis.call('GET', KEYS[1]) or '', '^(%S+) (%S+)$')
if not since or tonumber(ends) <= now then since = string.format('%.0f', now) end
redis.call('SET', KEYS[1], since .. string.format(' %.0f', now + ${FULL_MEMORY_MS}), 'PX', ${FULL_MEMORY_MS})
return since
`);

/**
 * Octets of mail in flight. The keys of one mailbox share a slot of a Cluster; claims are granted one by one, so that in a Cluster each can be a
 * script of its own. Which mailboxes a message may hold room in is another key, written at the same time.
 */
export class RedisReservations {
  readonly #client: RedisCalls;

  constructor(client: RedisCalls) {
    this.#client = client;
  }

  async reserve(trace: string, claims: readonly Claim[], holdMs: number): Promise<readonly ClaimResult[]> {
    if (claims.length === 0) return [];
    const results: ClaimResult[] = [];
    const groups = together(this.#client, claims, ({ mailbox }) => this.#keys(mailbox)[0]);
    const remembered = this.#client.run(
      REMEMBER,
      [messageKey(this.#client.prefix, bounded(trace))],
      [`${holdMs}`, ...claims.map(({ mailbox }) => bounded(mailbox))],
    );
    const claimed = groups.map(async (group) => {
      const some = await this.#claim(trace, picked(claims, group), holdMs);
      for (const [place, result] of some.entries()) results[group[place] ?? 0] = result;
    });
    await Promise.all([remembered, ...claimed]);
    return results;
  }

  async #claim(trace: string, claims: readonly Claim[], holdMs: number): Promise<readonly ClaimResult[]> {
    const keys: string[] = [];
    const given = [bounded(trace), `${holdMs}`];
    for (const { mailbox, bytes, used, limit, grace } of claims) {
      keys.push(...this.#keys(mailbox));
      given.push(`${bytes} ${used} ${limit ?? '-'} ${grace}`);
    }
    const answer = await this.#client.run(RESERVE, keys, given);
    const words: readonly unknown[] = Array.isArray(answer) ? answer : [];
    return claims.map((_, index) => {
      const inFlight = words[2 * index + 1];
      if (typeof inFlight !== 'number') throw this.#client.nonsense();
      return { granted: words[2 * index] === 1, inFlight };
    });
  }

  async settle(trace: string, mailbox: string | null, lingerMs: number): Promise<void> {
    const message = messageKey(this.#client.prefix, bounded(trace));
    const mailboxes = mailbox === null ? await this.#client.members(message) : [mailbox];
    if (mailboxes.length === 0) return;
    const keys = mailboxes.map((each) => this.#keys(each)[1]);
    const groups = together(this.#client, keys, (key) => key);
    await Promise.all(
      groups.map((group) => this.#client.run(SETTLE, picked(keys, group), [bounded(trace), `${lingerMs}`])),
    );
  }

  async reservations(mailbox: string): Promise<readonly Reservation[]> {
    const answer = await this.#client.run(TELL, this.#keys(mailbox), []);
    if (!Array.isArray(answer)) throw this.#client.nonsense();
    const words: readonly unknown[] = answer;
    const found: Reservation[] = [];
    for (let at = 0; at < words.length; at += 3) {
      const trace = words[at];
      const bytes = numberIn(words[at + 1]);
      const until = numberIn(words[at + 2]);
      if (typeof trace !== 'string' || !Number.isFinite(bytes + until)) throw this.#client.nonsense();
      found.push({ trace, mailbox, bytes, until });
    }
    return found;
  }

  async noteFull(mailbox: string, full: boolean): Promise<number | null> {
    const key = fullKey(this.#client.prefix, bounded(mailbox));
    const answer = await this.#client.run(FULL, [key], [full ? '1' : '0']);
    if (!full) return null;
    const since = numberIn(answer);
    if (!Number.isFinite(since)) throw this.#client.nonsense();
    return since;
  }

  #keys(mailbox: string): readonly [held: string, lapses: string] {
    return heldKeys(this.#client.prefix, bounded(mailbox));
  }
}
