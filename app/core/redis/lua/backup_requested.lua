-- Note a request for a backup of the session's files as they are from now on. Answers its number, 0 without a session.
-- KEYS: session, backups:requested. ARGV: uuid, due, now.
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local number = redis.call('HINCRBY', KEYS[1], 'backup_asked', 1)
if not redis.call('ZSCORE', KEYS[2], ARGV[1]) then redis.call('HSET', KEYS[1], 'backup_waits', ARGV[3]) end
redis.call('ZADD', KEYS[2], ARGV[2], ARGV[1])
return number
