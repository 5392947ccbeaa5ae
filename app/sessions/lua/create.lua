-- Record a new session, unless its user has as many as one may have.
-- KEYS: session, events, sessions:all, status set, user set, intents, expiry
-- ARGV: uuid, quota (-1 none), created_at, due of the intent, expires_at (0 none), event type, event data, then field, value, ...
-- Answers "ok", "exists" or "quota".
if redis.call('EXISTS', KEYS[1]) == 1 then return 'exists' end
local quota = tonumber(ARGV[2])
if quota >= 0 and redis.call('ZCARD', KEYS[5]) >= quota then return 'quota' end
redis.call('HSET', KEYS[1], unpack(ARGV, 8))
for i = 3, 5 do redis.call('ZADD', KEYS[i], ARGV[3], ARGV[1]) end
if ARGV[4] ~= '0' then redis.call('ZADD', KEYS[6], ARGV[4], ARGV[1]) end
if ARGV[5] ~= '0' then redis.call('ZADD', KEYS[7], ARGV[5], ARGV[1]) end
redis.call('XADD', KEYS[2], '*', 'type', ARGV[6], 'data', ARGV[7])
return 'ok'
