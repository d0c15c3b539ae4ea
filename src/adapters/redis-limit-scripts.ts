import { script } from './redis-calls.ts';

/** Counters that can be listed, and forgotten as a group: those that last longest from now on. Others count all the same. */
export const LISTED_COUNTERS = 100_000;

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
export const HIT = script(`${COUNT}${KEEP}
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
export const REFUND = script(`${COUNT}${KEEP}
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
export const ADD = script(`${COUNT}${KEEP}
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
export const TELL = script(`${COUNT}
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
export const FORGET = script(`
local index, forgotten = ARGV[2] == '1' and KEYS[#KEYS], 0
for i = 1, #KEYS - (index and 1 or 0) do
  forgotten = forgotten + redis.call('DEL', KEYS[i])
  if index then redis.call('ZREM', index, KEYS[i]) end
end
return forgotten
`);
