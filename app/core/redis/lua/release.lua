-- A session is about to be started: the prompts held back may be delivered. An agent that was told to stop must be
-- resumed, which makes the session pending like a waiting prompt.
release()
count()
if redis.call('HEXISTS', agent, 'leaving') == 1 then redis.call('ZADD', pending, 'NX', given.due, given.uuid) end
return 1
