-- A session is being deleted, and its prompts have ended. Whoever sent one may ask for its end for as long as that is
-- kept, which counts no more. ARGV[1] has besides: counts (see budget.lua).
redis.call('DEL', held, prompts, agent, KEYS[13])
redis.call('ZREM', pending, given.uuid)
local user_id = redis.call('HGET', session, 'user_id') or ''
redis.call('HDEL', given.counts[1] .. user_id .. given.counts[2], given.uuid)
return 1
