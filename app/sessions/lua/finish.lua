-- A prompt is finished. ARGV[1] has besides: state (processed or failed), response (JSON, or ""), reason,
-- kept (s: how long the message is). Answers 1, or 0 when it is unknown or was finished before.
local state = redis.call('HGET', message, 'state')
if not state or state == 'processed' or state == 'failed' then return 0 end
for _, list in ipairs({inbox, held, prompts}) do redis.call('LREM', list, 1, given.id) end
redis.call('HSET', message, 'state', given.state, 'processed_at', given.now, 'response', given.response,
  'reason', given.reason)
redis.call('HDEL', message, 'text')
redis.call('EXPIRE', message, given.kept)
tell(given.state, given.reason)
touch()
count()
return 1
