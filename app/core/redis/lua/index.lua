-- Put a backup into the index, unless one of that name is being deleted.
-- KEYS: the retired, the backup, then the sets it belongs to. ARGV: name, created_at, then field, value, ...
-- Answers 0 when it is being deleted.
if redis.call('ZSCORE', KEYS[1], ARGV[1]) then return 0 end
redis.call('HSET', KEYS[2], unpack(ARGV, 3))
for i = 3, #KEYS do redis.call('ZADD', KEYS[i], ARGV[2], ARGV[1]) end
return 1
