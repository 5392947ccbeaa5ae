-- All connections to a session's workspace from before an access epoch have ended.
-- KEYS: session, lockouts, tries. ARGV: uuid, access epoch. Answers 0 when access was revoked again since.
if (redis.call('HGET', KEYS[1], 'access_epoch') or '0') ~= ARGV[2] then return 0 end
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('DEL', KEYS[3])
return 1
