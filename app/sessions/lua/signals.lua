-- Note signs that a session is in use, in its record; one that is on its way out is left alone.
-- KEYS: session. ARGV: when it was last used by them, then field, text, ... Answers 0 when there is no such session.
local status, last = unpack(redis.call('HMGET', KEYS[1], 'status', 'last_activity'))
if not status or status == 'terminating' or status == 'terminated' then return 0 end
if tonumber(last or '0') < tonumber(ARGV[1]) then redis.call('HSET', KEYS[1], 'last_activity', ARGV[1]) end
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
redis.call('HDEL', KEYS[1], 'expiry_tries')
return 1
