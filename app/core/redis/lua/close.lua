-- A session is being deleted, and its prompts are finished. Their results stay readable until they expire, and no longer
-- count towards a budget. ARGV[1] has besides: counts (see budget.lua).
redis.call('DEL', held, prompts, agent, KEYS[13], session .. ':undone')
redis.call('ZREM', pending, given.uuid)
local user_id = redis.call('HGET', session, 'user_id') or ''
redis.call('HDEL', given.counts[1] .. user_id .. given.counts[2], given.uuid)
return 1
