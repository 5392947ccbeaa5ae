-- Note that a session's stored conversation is behind.
-- KEYS: session. ARGV: the note. Answers 0 when the session does not exist.
local status = redis.call('HGET', KEYS[1], 'status')
if not status or status == 'terminated' then return 0 end
redis.call('HSET', KEYS[1] .. ':use', 'unarchived', ARGV[1])
return 1
