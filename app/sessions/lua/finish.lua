-- A prompt is finished. ARGV[1] has besides: state (processed or failed), response (JSON, or ""), reason,
-- kept (s: how long the message is), reserve. Answers 1, or 0 when it is unknown or was finished before.
local state = redis.call('HGET', message, 'state')
if not state or state == 'processed' or state == 'failed' then return 0 end
local before = redis.call('HSTRLEN', message, 'text')
local after = #given.response + #given.reason
for _, list in ipairs({inbox, held, prompts}) do redis.call('LREM', list, 1, given.id) end
redis.call('HSET', message, 'state', given.state, 'processed_at', given.now, 'response', given.response,
  'reason', given.reason)
redis.call('HDEL', message, 'text')
redis.call('EXPIRE', message, given.kept)
local answer = string.format('%d %s', after + given.message_bytes, given.id)
redis.call('ZADD', answered, tonumber(given.now) + given.kept, answer)
redis.call('EXPIRE', answered, given.kept)
charge(after - before)
shed(math.max(over(0)), answer)
-- An answer can't be refused, but it can take the place of the others.
if full(given.reserve) then shed(math.huge, answer) end
tell(given.state, given.reason)
touch()
count()
return 1
