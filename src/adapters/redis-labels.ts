import { LABEL_KINDS, type Decision, type Label } from '../ports/store.ts';
import { numberIn, picked, script, together, type RedisCalls } from './redis-calls.ts';
import { SHARDS, shardOf } from './redis-history.ts';
import { LABELS_PER_USER } from './sqlite-labels.ts';
import { bounded } from './state-keys.ts';

/** How long the number of a user's labels is known after his last one. */
const USER_MS = 400 * 86_400_000;
/** Labels that one step of the expiry removes. */
const EXPIRED = 500;
/** Messages that are asked about at once. */
const ASKED = 500;

/**
 * A shard has a sorted set of all its labels, "message, line feed, user", by their time; each message has a hash, of the same slot, of users, each with
 * the label's first letter and its time.
 */
const PUT = script(`
local message, user, letter, time = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local key = KEYS[1] .. ':' .. message
local before = redis.call('HGET', key, user)
if before and tonumber(string.sub(before, 2)) > time then return 1 end
redis.call('HSET', key, user, string.format('%s%.0f', letter, time))
redis.call('ZADD', KEYS[1], string.format('%.0f', time), message .. '\\n' .. user)
return 1
`);

/** KEYS: a user. ARGV: a message that he labelled, time. Answers messages whose labels are too many. */
const COUNT = script(`
redis.call('ZADD', KEYS[1], 'GT', ARGV[3], ARGV[2])
redis.call('PEXPIRE', KEYS[1], ${USER_MS})
local surplus = redis.call('ZCARD', KEYS[1]) - ${LABELS_PER_USER}
if surplus <= 0 then return {} end
local oldest = redis.call('ZRANGE', KEYS[1], 0, surplus - 1)
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, surplus - 1)
return oldest
`);

/** KEYS: a shard. ARGV: message and user. */
const DROP = script(`
redis.call('HDEL', KEYS[1] .. ':' .. ARGV[2], ARGV[3])
redis.call('ZREM', KEYS[1], ARGV[2] .. '\\n' .. ARGV[3])
return 1
`);

/** KEYS: shards. ARGV: for each how many messages, and these. Answers, for each message that has labels, its name and users with what they said. */
const TELL = script(`
local at, answers = 2, {}
for _, shard in ipairs(KEYS) do
  local count = tonumber(ARGV[at])
  if redis.call('EXISTS', shard) == 1 then
    for i = at + 1, at + count do
      local said = redis.call('HGETALL', shard .. ':' .. ARGV[i])
      if #said > 0 then
        answers[#answers + 1] = ARGV[i]
        answers[#answers + 1] = said
      end
    end
  end
  at = at + 1 + count
end
return answers
`);

/** KEYS: a shard. ARGV: before when. Answers how many went. */
const EXPIRE = script(`
local oldest = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. ARGV[2], 'LIMIT', 0, ${EXPIRED})
for _, each in ipairs(oldest) do
  local message, user = string.match(each, '^([^\\n]*)\\n(.*)$')
  redis.call('HDEL', KEYS[1] .. ':' .. message, user)
  redis.call('ZREM', KEYS[1], each)
end
return #oldest
`);

/** What users say of messages: one label for each message and user. */
export class RedisLabels {
  readonly #client: RedisCalls;

  constructor(client: RedisCalls) {
    this.#client = client;
  }

  async put({ message, user, label, time }: Label): Promise<void> {
    const [name, who] = [nameOf(message), bounded(user)];
    const given = [name, who, label.slice(0, 1), `${time}`];
    if ((await this.#client.run(PUT, [this.#key(name)], given)) !== 1) throw this.#client.nonsense();
    const counted = await this.#client.run(
      COUNT,
      [`${this.#client.prefix}labelled:{${who}}`],
      [name, `${time}`],
    );
    if (!Array.isArray(counted)) throw this.#client.nonsense();
    const surplus: readonly unknown[] = counted;
    await Promise.all(
      surplus.map((old) => this.#client.run(DROP, [this.#key(String(old))], [String(old), who])),
    );
  }

  /** The decisions, with what users said of their messages. */
  async with(decisions: readonly Decision[]): Promise<readonly Decision[]> {
    const names = new Set(decisions.flatMap(namesOf));
    const said = new Map<string, readonly Label[]>();
    const all = [...names];
    for (let at = 0; at < all.length; at += ASKED) await this.#tell(all.slice(at, at + ASKED), said);
    if (said.size === 0) return decisions;
    return decisions.map((decision) => {
      // A user may have spoken of the message by its trace, and by its Message-ID: the last word stands.
      const last = new Map<string, Label>();
      const labels = namesOf(decision).flatMap((name) => said.get(name) ?? []);
      for (const label of labels.toSorted((one, other) => one.time - other.time)) {
        last.delete(label.user);
        last.set(label.user, label);
      }
      return last.size === 0 ? decision : { ...decision, labels: [...last.values()] };
    });
  }

  async expire(before: number, stop: () => boolean): Promise<void> {
    for (let shard = 0; shard < SHARDS; shard++) {
      for (let gone = EXPIRED; gone === EXPIRED && !stop();) {
        const answer = await this.#client.run(EXPIRE, [this.#shard(shard)], [`${before}`]);
        if (typeof answer !== 'number') throw this.#client.nonsense();
        gone = answer;
      }
    }
  }

  async #tell(names: readonly string[], said: Map<string, readonly Label[]>): Promise<void> {
    const groups = together(this.#client, names, (name) => this.#key(name));
    await Promise.all(
      groups.map(async (group) => {
        const shards = Map.groupBy(picked(names, group), (name) => this.#key(name));
        const given = [...shards.values()].flatMap((some) => [`${some.length}`, ...some]);
        const answer = await this.#client.run(TELL, [...shards.keys()], given);
        if (!Array.isArray(answer)) throw this.#client.nonsense();
        const words: readonly unknown[] = answer;
        for (let at = 0; at < words.length; at += 2) {
          const name = String(words[at]);
          said.set(name, this.#read(name, words[at + 1]));
        }
      }),
    );
  }

  #read(message: string, answer: unknown): Label[] {
    const words: readonly unknown[] = Array.isArray(answer) ? answer : [];
    const labels: Label[] = [];
    for (let at = 0; at < words.length; at += 2) {
      const [user, text] = [words[at], words[at + 1]];
      const label =
        typeof text === 'string' ? LABEL_KINDS.find((kind) => kind.startsWith(text.slice(0, 1))) : undefined;
      const time = typeof text === 'string' ? numberIn(text.slice(1)) : NaN;
      if (typeof user !== 'string' || label === undefined || Number.isNaN(time))
        throw this.#client.nonsense();
      labels.push({ message, user, label, time });
    }
    return labels;
  }

  #key(name: string): string {
    return this.#shard(shardOf(name));
  }

  #shard(shard: number): string {
    return `${this.#client.prefix}labels:{labels.${shard}}`;
  }
}

/** Without line feeds, which end a name. */
function nameOf(message: string): string {
  return bounded(message.replaceAll('\n', ' '));
}

function namesOf({ trace, messageId }: Decision): readonly string[] {
  return messageId === null ? [nameOf(trace)] : [nameOf(trace), nameOf(messageId)];
}
