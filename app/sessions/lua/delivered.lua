-- The agent has a prompt: it waits no more. Answers 1 when it did until now.
local waited = redis.call('LREM', inbox, 1, given.id) + redis.call('LREM', held, 1, given.id)
if redis.call('HGET', message, 'state') == 'queued' then
  redis.call('HSET', message, 'state', 'delivered', 'delivered_at', given.now)
  tell('delivered')
  touch()
end
redis.call('HDEL', agent, 'failures', 'retry_at')
count()
return waited
