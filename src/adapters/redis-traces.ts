import { hash } from 'node:crypto';

import type { KeptFacts, TraceId, TraceKeys } from '../ports/store.ts';
import { numberIn, script, type RedisCalls } from './redis-calls.ts';
import { jsonIn, packedOutcomes, unpackedOutcomes } from './redis-decision-text.ts';

import { CLAIM_AGE_MS, FACTS_AGE_MS, TRACE_AGE_MS } from './trace-ages.ts';

/** Entries of one key: messages of one session and sender that wait for their milter, and messages that had one queue id. The oldest go first. */
const ENTRIES = 64;
const DIGEST_LENGTH = 12;
/** What is not known, or must not be looked for. */
const NONE = '-';

/**
 * An entry is "time trace one other". Under a session and sender, for messages that no milter has claimed yet: one is the queue id, other policyd's
 * instance. Under a queue id: one is the session, other the instance. `-`: not known. All but times and traces are digests: no address is kept.
 */
const TRACES = `
local function entries(key)
  local all = {}
  for time, trace, one, other in string.gmatch(redis.call('GET', key) or '', '(%S+) (%S+) (%S+) (%S+)\\n') do
    all[#all + 1] = {time = tonumber(time), trace = trace, one = one, other = other}
  end
  return all
end

local function put(key, all, ttl)
  local lines = {}
  for i = math.max(1, #all - ${ENTRIES} + 1), #all do
    local e = all[i]
    lines[#lines + 1] = string.format('%.0f %s %s %s\\n', e.time, e.trace, e.one, e.other)
  end
  if #lines == 0 then redis.call('DEL', key) else redis.call('SET', key, table.concat(lines), 'PX', ttl) end
end

local function add(key, entry, ttl)
  local all = entries(key)
  all[#all + 1] = entry
  put(key, all, ttl)
end

local function suits(one, other)
  return one == '-' or other == '-' or one == other
end

local function named(key, since, session, instance, ttl)
  local all = entries(key)
  for i = #all, 1, -1 do
    local e = all[i]
    if e.time >= since and suits(e.one, session) and suits(e.other, instance) then
      redis.call('PEXPIRE', key, ttl)
      return e.trace
    end
  end
end

local function claim(key, since, queue)
  local all = entries(key)
  for i = #all, 1, -1 do
    local e = all[i]
    if e.time >= since and suits(e.one, queue) then
      table.remove(all, i)
      put(key, all, ${CLAIM_AGE_MS})
      return e
    end
  end
end

local function claimed(key, trace)
  local all = entries(key)
  for i = #all, 1, -1 do
    if all[i].trace == trace then
      table.remove(all, i)
      put(key, all, ${CLAIM_AGE_MS})
      return
    end
  end
end
`;

/** KEYS: a session and sender. ARGV: time, trace, queue id, instance. */
const OPENED = script(`${TRACES}
add(KEYS[1], {time = tonumber(ARGV[2]), trace = ARGV[3], one = ARGV[4], other = ARGV[5]}, ${CLAIM_AGE_MS})
return 1
`);

/** KEYS: a queue id. ARGV: time, trace, session, instance, how long it is kept. */
const NAME = script(`${TRACES}
add(KEYS[1], {time = tonumber(ARGV[2]), trace = ARGV[3], one = ARGV[4], other = ARGV[5]}, ARGV[6])
return 1
`);

/** KEYS: a queue id. ARGV: since, session, instance, how long it is kept. Answers the trace. */
const NAMED = script(`${TRACES}
return named(KEYS[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5]) or false
`);

/** KEYS: a session and sender. ARGV: since, queue id. Answers trace and instance. */
const CLAIM = script(`${TRACES}
local found = claim(KEYS[1], tonumber(ARGV[2]), ARGV[3])
return found and {found.trace, found.other}
`);

/** KEYS: a session and sender. ARGV: a trace that is claimed by now. */
const CLAIMED = script(`${TRACES}
claimed(KEYS[1], ARGV[2])
return 1
`);

/** KEYS: a session and sender. ARGV: since, queue id, instance. Answers the trace, and whether its queue id was not known. */
const KNOWN = script(`${TRACES}
local all = entries(KEYS[1])
for i = #all, 1, -1 do
  local e = all[i]
  if e.time >= tonumber(ARGV[2]) and e.other == ARGV[4] then
    local fresh = e.one == '-'
    if fresh then
      e.one = ARGV[3]
      put(KEYS[1], all, ${CLAIM_AGE_MS})
    end
    return {e.trace, fresh and 1 or 0}
  end
end
return false
`);

/**
 * What joining comes to, in one step. KEYS: a queue id, a session and sender. ARGV: time, oldest time of a queue id, oldest time of a claim, fresh trace,
 * session, queue id, how long it is kept.
 */
const JOIN = script(`${TRACES}
local time, session, ttl = tonumber(ARGV[2]), ARGV[6], ARGV[8]
local found = named(KEYS[1], tonumber(ARGV[3]), session, '-', ttl)
if found then
  if session ~= '-' then claimed(KEYS[2], found) end
  return found
end
local e = session ~= '-' and claim(KEYS[2], tonumber(ARGV[4]), ARGV[7]) or {trace = ARGV[5], other = '-'}
add(KEYS[1], {time = time, trace = e.trace, one = session, other = e.other}, ttl)
return e.trace
`);

/** KEYS: queue ids, or sessions and senders. ARGV: since when entries stay. */
const FORGET = script(`${TRACES}
for _, key in ipairs(KEYS) do
  local all, kept = entries(key), {}
  for _, e in ipairs(all) do
    if e.time >= tonumber(ARGV[2]) then kept[#kept + 1] = e end
  end
  local ttl = redis.call('PTTL', key)
  if #kept < #all and ttl > 0 then put(key, kept, ttl) end
end
return 1
`);

/** KEYS: facts. ARGV: text, how long they are kept. */
const KEEP = script(`
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
`);

/** KEYS: facts. ARGV: how long they are kept from now on. */
const KEPT = script(`
local text = redis.call('GET', KEYS[1])
if text then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return text
`);

/** KEYS: facts. ARGV: since when they stay. */
const FORGET_FACTS = script(`
for _, key in ipairs(KEYS) do
  local time = string.match(redis.call('GET', key) or '', '^(%d+) ')
  if time and tonumber(time) < tonumber(ARGV[2]) then redis.call('DEL', key) end
end
return 1
`);

/**
 * Traces and kept facts, a key for each. The time of entries is the host's, as that of decisions; keys lapse by themselves, when nobody has looked at
 * them for `keepMs`. On one server a milter's question is one script; in a Cluster the queue id and the session have their own slots.
 */
export class RedisTraces {
  readonly #client: RedisCalls;
  readonly #keepMs: number;

  constructor(client: RedisCalls, keepMs: number) {
    this.#client = client;
    this.#keepMs = keepMs;
  }

  /** A message that is new. */
  async opened(keys: TraceKeys, fresh: TraceId, now: number): Promise<void> {
    const { instance, queueId } = words(keys);
    await this.#done(OPENED, this.#session(keys), [`${now}`, fresh, queueId, instance]);
  }

  /** A message that may not be new: policyd was started again meanwhile, or has forgotten it. */
  async open(keys: TraceKeys, fresh: TraceId, now: number): Promise<TraceId> {
    const { session, instance, queueId } = words(keys);
    const found = await this.#named(queueId, session, instance, now);
    if (found !== null) return found;
    const since = `${now - CLAIM_AGE_MS}`;
    const known: unknown =
      instance === NONE
        ? null
        : await this.#client.run(KNOWN, [this.#session(keys)], [since, queueId, instance]);
    if (known === null) {
      await this.opened(keys, fresh, now);
      await this.#name(queueId, fresh, session, instance, now);
      return fresh;
    }
    const [trace, fresher] = list(known);
    if (typeof trace !== 'string') throw this.#client.nonsense();
    if (fresher === 1) await this.#name(queueId, trace, session, instance, now);
    return trace;
  }

  async join(keys: TraceKeys, fresh: TraceId, now: number): Promise<TraceId> {
    const { session, queueId } = words(keys);
    const [named, claimed] = [`${now - TRACE_AGE_MS}`, `${now - CLAIM_AGE_MS}`];
    if (!this.#client.cluster && queueId !== NONE) {
      const given = [`${now}`, named, claimed, fresh, session, queueId, `${this.#keepMs}`];
      const answer = await this.#client.run(JOIN, [this.#queue(queueId), this.#session(keys)], given);
      if (typeof answer !== 'string') throw this.#client.nonsense();
      return answer;
    }
    const found = queueId === NONE ? null : await this.#named(queueId, session, NONE, now);
    if (found !== null) {
      if (session !== NONE) await this.#done(CLAIMED, this.#session(keys), [found]);
      return found;
    }
    const claim: unknown =
      session === NONE ? null : await this.#client.run(CLAIM, [this.#session(keys)], [claimed, queueId]);
    const [trace, instance] = claim === null ? [fresh, NONE] : list(claim);
    if (typeof trace !== 'string' || typeof instance !== 'string') throw this.#client.nonsense();
    if (queueId !== NONE) await this.#name(queueId, trace, session, instance, now);
    return trace;
  }

  async keep(
    trace: TraceId,
    queueId: string,
    { direction, outcomes }: KeptFacts,
    now: number,
  ): Promise<void> {
    const text = `${now} ${direction} ${JSON.stringify(packedOutcomes(outcomes, true))}`;
    await this.#done(KEEP, this.#facts(trace, queueId), [text, `${this.#keepMs}`]);
  }

  async kept(trace: TraceId, queueId: string, now: number): Promise<KeptFacts | null> {
    const text = await this.#client.run(KEPT, [this.#facts(trace, queueId)], [`${this.#keepMs}`]);
    if (text === null) return null;
    const [, time = '', direction, rest = ''] =
      typeof text === 'string' ? (/^(\d+) (in|out) (.*)$/s.exec(text) ?? []) : [];
    const outcomes = unpackedOutcomes(jsonIn(rest));
    if (outcomes === null || (direction !== 'in' && direction !== 'out')) throw this.#client.nonsense();
    return numberIn(time) < now - FACTS_AGE_MS ? null : { direction, outcomes };
  }

  /** Removes what is older than `before` and has not lapsed by itself. */
  async expire(before: number, now: number): Promise<void> {
    // Nothing is kept for longer than that without being looked at.
    if (before <= now - Math.max(this.#keepMs, CLAIM_AGE_MS)) return;
    for (const [kind, remove] of [
      ['queue', FORGET],
      ['opened', FORGET],
      ['facts', FORGET_FACTS],
    ] as const) {
      for await (const keys of this.#client.keys(`${this.#client.prefix}${kind}:{`)) {
        // Of a Cluster they have as many slots.
        const groups = this.#client.cluster ? keys.map((key) => [key]) : keys.length === 0 ? [] : [keys];
        await Promise.all(groups.map((group) => this.#client.run(remove, group, [`${before}`])));
      }
    }
  }

  async #named(queueId: string, session: string, instance: string, now: number): Promise<TraceId | null> {
    const given = [`${now - TRACE_AGE_MS}`, session, instance, `${this.#keepMs}`];
    const answer = await this.#client.run(NAMED, [this.#queue(queueId)], given);
    if (answer !== null && typeof answer !== 'string') throw this.#client.nonsense();
    return answer;
  }

  async #name(
    queueId: string,
    trace: TraceId,
    session: string,
    instance: string,
    now: number,
  ): Promise<void> {
    await this.#done(NAME, this.#queue(queueId), [`${now}`, trace, session, instance, `${this.#keepMs}`]);
  }

  async #done(what: typeof NAME, key: string, given: readonly string[]): Promise<void> {
    if ((await this.#client.run(what, [key], given)) !== 1) throw this.#client.nonsense();
  }

  #queue(queueId: string): string {
    return `${this.#client.prefix}queue:{${queueId}}`;
  }

  #session({ session, sender }: TraceKeys): string {
    return `${this.#client.prefix}opened:{${digest(`${session ?? NONE}\n${sender}`)}}`;
  }

  #facts(trace: TraceId, queueId: string): string {
    return `${this.#client.prefix}facts:{${digest(`${trace}\n${queueId}`)}}`;
  }
}

interface Words {
  readonly session: string;
  readonly instance: string;
  readonly queueId: string;
}

/** What is not known, and digests of the rest: of one length, and without spaces whatever a remote party chose. */
function words({ session, instance, queueId }: TraceKeys): Words {
  return { session: wordOf(session), instance: wordOf(instance), queueId: wordOf(queueId) };
}

function wordOf(text: string | null): string {
  return text === null ? NONE : digest(text);
}

function digest(text: string): string {
  return hash('sha1', text, 'base64url').slice(0, DIGEST_LENGTH);
}

function list(answer: unknown): readonly unknown[] {
  return Array.isArray(answer) ? answer : [];
}
