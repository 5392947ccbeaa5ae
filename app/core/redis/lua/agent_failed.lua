-- A session's agent failed to take a prompt: retry after a pause that doubles each time.
-- ARGV[1] has besides: boot (of the agent that was tried), first and longest (s). Answers 0 when another agent registered.
if redis.call('HGET', agent, 'boot') ~= given.boot then return 0 end
local times = redis.call('HINCRBY', agent, 'failures', 1)
local retry_at = tonumber(given.now) + math.min(given.first * 2 ^ math.min(times - 1, 30), given.longest)
redis.call('HSET', agent, 'retry_at', string.format('%.3f', retry_at))
redis.call('ZADD', pending, 'XX', string.format('%.3f', retry_at), given.uuid)
return 1
