-- The connections to a session's workspace were ended that were made before a door of it.
-- KEYS: session, lockouts, tries. ARGV: uuid, door. Answers 0 when more passes were taken back since.
if (redis.call('HGET', KEYS[1], 'door') or '0') ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], 'locked_door', ARGV[2])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('DEL', KEYS[3])
return 1
