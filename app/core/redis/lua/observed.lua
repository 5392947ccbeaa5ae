-- A heartbeat of the observer. After a pause, or a start, the time it has watched without a pause begins anew.
-- KEYS: observer:seen, observer:since. ARGV: now (s since the epoch), silence (s; a longer one is a pause).
-- Both keys change in one step: otherwise a reader could take the time before the pause for watched.
local seen, since = unpack(KEYS)
local now, silence = tonumber(ARGV[1]), tonumber(ARGV[2])
local before = tonumber(redis.call('GET', seen))
if not before or now < before or now - before > silence then redis.call('SET', since, ARGV[1]) end
redis.call('SET', seen, ARGV[1])
return 1
