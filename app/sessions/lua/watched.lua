-- The watcher looks now. A pause, or a start, begins the time anew through which it has looked.
-- KEYS: watcher:seen, watcher:since. ARGV: now (s since the epoch), silence (s, the longest that is no pause).
-- Nobody may see the one without the other: a judge would take the time before the pause for watched.
local seen, since = unpack(KEYS)
local now, silence = tonumber(ARGV[1]), tonumber(ARGV[2])
local before = tonumber(redis.call('GET', seen))
if not before or now < before or now - before > silence then redis.call('SET', since, ARGV[1]) end
redis.call('SET', seen, ARGV[1])
return 1
