-- The agent has a prompt. Answers 1 when the prompt was waiting until now.
local waited = redis.call('LREM', inbox, 1, given.id) + redis.call('LREM', held, 1, given.id)
if redis.call('HGET', prompt, 'state') == 'queued' then
  redis.call('HSET', prompt, 'state', 'delivered', 'delivered_at', given.now)
  tell('delivered')
  touch()
end
redis.call('HDEL', agent, 'failures', 'retry_at')
count()
return waited
