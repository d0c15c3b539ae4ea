import { DISTINCT_LIMIT } from '../ports/accounts.ts';
import { LISTED_COUNTERS } from './redis-limit-scripts.ts';
import { script } from './redis-calls.ts';

/**
 * Scripts that read and write what the state holds as it is, to move it. Times go in and out as they are; Redis removes each key at its time exactly,
 * which `offset` (of tests, which own the time) is taken from.
 */
const LAST = `
local offset = tonumber(ARGV[1])

local function last(key, ends)
  if redis.call('PTTL', key) < ends - now then redis.call('PEXPIREAT', key, string.format('%.0f', ends - offset)) end
end
`;

/** Answers the time, milliseconds. */
export const CLOCK = script(`return string.format('%.0f', now)`);

/** KEYS: texts. */
export const READ = script(`return redis.call('MGET', unpack(KEYS))`);

/**
 * KEYS: texts, and the index of counters, where ARGV says that there is one. ARGV: for each what it must be still (empty: not there), what it is to
 * be, and until when. Answers for each whether it was written.
 */
export const SWAP = script(`${LAST}
local index, written = ARGV[2] == '1' and KEYS[#KEYS], {}
for i = 1, #KEYS - (index and 1 or 0) do
  local key, before, text, ends = KEYS[i], ARGV[3 * i], ARGV[3 * i + 1], tonumber(ARGV[3 * i + 2])
  written[i] = (redis.call('GET', key) or '') == before and 1 or 0
  if written[i] == 1 then
    redis.call('SET', key, text)
    redis.call('PEXPIREAT', key, string.format('%.0f', ends - offset))
    if index then
      redis.call('ZADD', index, string.format('%.0f', ends), key)
      last(index, ends)
    end
  end
end
if index then redis.call('ZREMRANGEBYRANK', index, 0, -${LISTED_COUNTERS} - 1) end
return written
`);

/** KEYS: texts, and the index of counters, where ARGV says that there is one. */
export const DROP = script(`
local index = ARGV[2] == '1' and KEYS[#KEYS]
for i = 1, #KEYS - (index and 1 or 0) do
  redis.call('DEL', KEYS[i])
  if index then redis.call('ZREM', index, KEYS[i]) end
end
`);

/** KEYS: hash and set of a mailbox. ARGV: how many are left out, how many are told. Answers trace, octets and end of each. */
export const HELD = script(`
local answers = {}
local traces = redis.call('ZRANGEBYSCORE', KEYS[2], string.format('(%.0f', now), '+inf', 'WITHSCORES', 'LIMIT', ARGV[2], ARGV[3])
for i = 1, #traces, 2 do
  answers[#answers + 1] = traces[i]
  answers[#answers + 1] = redis.call('HGET', KEYS[1], traces[i]) or '0'
  answers[#answers + 1] = traces[i + 1]
end
return answers
`);

/** KEYS: hash and set for each. ARGV: traces. Answers octets and end of each, empty: there is none. */
export const FIND_HELD = script(`
local answers = {}
for i = 1, #KEYS / 2 do
  local ends = redis.call('ZSCORE', KEYS[2 * i], ARGV[i + 1])
  answers[2 * i - 1] = ends and redis.call('HGET', KEYS[2 * i - 1], ARGV[i + 1]) or ''
  answers[2 * i] = ends or ''
end
return answers
`);

/** KEYS: hash and set for each. ARGV: trace, octets and end of each; octets empty: it goes. */
export const HOLD = script(`${LAST}
for i = 1, #KEYS / 2 do
  local held, lapses, trace, bytes, ends = KEYS[2 * i - 1], KEYS[2 * i], ARGV[3 * i - 1], ARGV[3 * i], ARGV[3 * i + 1]
  local sum = tonumber(redis.call('HGET', held, '') or 0) - tonumber(redis.call('HGET', held, trace) or 0)
  if bytes == '' then
    redis.call('HDEL', held, trace)
    redis.call('ZREM', lapses, trace)
    if redis.call('ZCARD', lapses) == 0 then redis.call('DEL', held) else redis.call('HSET', held, '', string.format('%.0f', sum)) end
  else
    redis.call('HSET', held, trace, bytes, '', string.format('%.0f', sum + tonumber(bytes)))
    redis.call('ZADD', lapses, ends, trace)
    last(held, tonumber(ends))
    last(lapses, tonumber(ends))
  end
end
`);

/** KEYS: the mailboxes of each message. ARGV: mailbox and end for each. */
export const HOLDS = script(`${LAST}
for i, key in ipairs(KEYS) do
  redis.call('SADD', key, ARGV[2 * i])
  last(key, tonumber(ARGV[2 * i + 1]))
end
`);

/** PEXPIRETIME, which is exact, is there since Redis 7. */
const ENDS = `
local function ends_of(key)
  local at = redis.pcall('PEXPIRETIME', key)
  return string.format('%.0f', type(at) == 'number' and at + tonumber(ARGV[1]) or now + redis.call('PTTL', key))
end
`;

/** KEYS: a set. ARGV: from which to which place. Answers its end, then names and times. */
export const SEEN_PAGE = script(`${ENDS}
local answers = redis.call('ZRANGE', KEYS[1], ARGV[2], ARGV[3], 'WITHSCORES')
table.insert(answers, 1, ends_of(KEYS[1]))
return answers
`);

/** KEYS: sets. ARGV: a name for each. Answers time and end of each; time empty: it is not in it. */
export const FIND_SEEN = script(`${ENDS}
local answers = {}
for i, key in ipairs(KEYS) do
  answers[2 * i - 1] = redis.call('ZSCORE', key, ARGV[i + 1]) or ''
  answers[2 * i] = ends_of(key)
end
return answers
`);

/** KEYS: sets. ARGV: whether later times give way; name, time and end for each. Answers for each whether it was written. */
export const SEE = script(`${LAST}
local written = {}
for i, key in ipairs(KEYS) do
  local name, time, ends = ARGV[3 * i], ARGV[3 * i + 1], tonumber(ARGV[3 * i + 2])
  local before = redis.call('ZSCORE', key, name)
  written[i] = (ARGV[2] == '1' or not before or tonumber(before) <= tonumber(time)) and 1 or 0
  if written[i] == 1 then
    redis.call('ZADD', key, time, name)
    redis.call('ZREMRANGEBYRANK', key, 0, ${-DISTINCT_LIMIT - 1})
    last(key, ends)
  end
end
return written
`);

/** KEYS: sets. ARGV: a name for each, which goes. */
export const UNSEE = script(`
for i, key in ipairs(KEYS) do redis.call('ZREM', key, ARGV[i + 1]) end
`);

/** KEYS: counts of hours. Answers names and counts of each. */
export const COUNTS = script(`
local answers = {}
for i, key in ipairs(KEYS) do answers[i] = redis.call('HGETALL', key) end
return answers
`);

/**
 * KEYS: the hours of a subject, and the counts of one, for each. ARGV: whether more gives way; then for each the hour, its end, how many names, and names
 * with counts. Without names the hour goes. Answers for each whether it was written.
 */
export const COUNT_HOURS = script(`${LAST}
local written, at = {}, 3
for i = 1, #KEYS / 2 do
  local hours, counts, hour, ends, names = KEYS[2 * i - 1], KEYS[2 * i], ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local given, there = 0, 0
  for n = 1, names do given = given + tonumber(ARGV[at + 2 + 2 * n]) end
  for _, count in ipairs(redis.call('HVALS', counts)) do there = there + tonumber(count) end
  written[i] = (ARGV[2] == '1' or there <= given) and 1 or 0
  if written[i] == 1 then
    redis.call('DEL', counts)
    for n = 1, names do redis.call('HSET', counts, ARGV[at + 1 + 2 * n], ARGV[at + 2 + 2 * n]) end
    if names == 0 then redis.call('ZREM', hours, hour)
    else
      redis.call('ZADD', hours, hour, hour)
      last(counts, ends)
      last(hours, ends)
    end
  end
  at = at + 3 + 2 * names
end
return written
`);

/** KEYS: standings, when they lapse. ARGV: from which to which place. Answers texts. */
export const STANDINGS_PAGE = script(`
local logins = redis.call('ZRANGE', KEYS[2], ARGV[2], ARGV[3])
if #logins == 0 then return {} end
return redis.call('HMGET', KEYS[1], unpack(logins))
`);

/** KEYS: as above. ARGV: logins. Answers texts. */
export const FIND_STANDINGS = script(`return redis.call('HMGET', KEYS[1], unpack(ARGV, 2))`);

/** KEYS: as above. ARGV: for each login, what it must be still (empty: not there), what it is to be, and its end; empty: it goes. Answers whether it was. */
export const SWAP_STANDINGS = script(`
local written = {}
for i = 1, (#ARGV - 1) / 4 do
  local login, before, text, ends = ARGV[4 * i - 2], ARGV[4 * i - 1], ARGV[4 * i], ARGV[4 * i + 1]
  written[i] = (redis.call('HGET', KEYS[1], login) or '') == before and 1 or 0
  if written[i] == 1 then
    if text == '' then
      redis.call('HDEL', KEYS[1], login)
      redis.call('ZREM', KEYS[2], login)
    else
      redis.call('HSET', KEYS[1], login, text)
      redis.call('ZADD', KEYS[2], ends == '-' and '+inf' or ends, login)
    end
  end
end
return written
`);
