-- A session is being deleted, and its prompts have ended: what it has of them goes. ARGV[1] has besides: reason (by which
-- they ended just now; their ends are kept for a while, and count no more), counts (see budget.lua).
for _, member in ipairs(redis.call('ZRANGE', KEYS[13], 0, -1)) do
  local name = string.gsub(message, '[^:]*$', '') .. string.match(member, ' (.*)$')
  if redis.call('HGET', name, 'reason') ~= given.reason then redis.call('DEL', name) end
end
redis.call('DEL', held, prompts, agent, KEYS[13])
redis.call('ZREM', pending, given.uuid)
local user_id = redis.call('HGET', session, 'user_id') or ''
redis.call('HDEL', given.counts[1] .. user_id .. given.counts[2], given.uuid)
return 1
