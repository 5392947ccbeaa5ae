-- A session is about to be started: the prompts that were held back may be delivered. An agent that was told to leave is
-- owed a call back, as a prompt is owed its delivery.
release()
count()
if redis.call('HEXISTS', agent, 'leaving') == 1 then redis.call('ZADD', pending, 'NX', given.due, given.uuid) end
return 1
