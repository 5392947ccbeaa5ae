-- An attempt at the requested restore point has ended. KEYS: session, points:requested, points:waiting.
-- ARGV: uuid, the number of requests when it began. Answers 0 when another was requested since.
redis.call('HDEL', KEYS[1], 'point_tries')
if (redis.call('HGET', KEYS[1], 'point_asked') or '0') ~= ARGV[2] then return 0 end
redis.call('HDEL', KEYS[1], 'point_trigger')
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
return 1
