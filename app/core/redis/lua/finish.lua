-- A prompt is finished. ARGV[1] has besides: state (processed or failed), response (JSON, or ""), reason,
-- code (why it failed), bounds. KEYS end with the hash of prompts' times and failures. Answers 0 when it is unknown or was
-- finished before.
local state = redis.call('HGET', prompt, 'state')
if not state or state == 'processed' or state == 'failed' then return 0 end
local before = redis.call('HSTRLEN', prompt, 'text')
local after = #given.response + #given.reason
for _, list in ipairs({inbox, held, prompts}) do redis.call('LREM', list, 1, given.id) end
redis.call('HSET', prompt, 'state', given.state, 'processed_at', given.now, 'response', given.response,
  'reason', given.reason)
redis.call('HDEL', prompt, 'text')
keep(after, after - before)
if given.state == 'processed' then
  timed(KEYS[14], 'answered')
else
  redis.call('HINCRBY', KEYS[14], 'failed:' .. given.code, 1)
end
tell(given.state, given.reason)
touch()
count()
return 1
