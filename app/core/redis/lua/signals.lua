-- Note activity signals of a session, unless it is being deleted.
-- KEYS: session. ARGV: the time of the newest signal, then field, text, ... Answers 0 when the session does not exist.
local status, last, tries = unpack(redis.call('HMGET', KEYS[1], 'status', 'last_activity', 'expiry_tries'))
if not status or status == 'terminating' or status == 'terminated' then return 0 end
local use = KEYS[1] .. ':use'
if tonumber(noted(KEYS[1]).last_activity or last or '0') < tonumber(ARGV[1]) then
  redis.call('HSET', use, 'last_activity', ARGV[1])
end
redis.call('HSET', use, unpack(ARGV, 2))
if tries then redis.call('HSET', use, 'expiry_tries', '0') end
return 1
