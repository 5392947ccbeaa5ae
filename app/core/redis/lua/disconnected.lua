-- All connections to a session's workspace from before an access epoch (`door`) have ended.
-- KEYS: session, lockouts, tries. ARGV: uuid, door. Answers 0 when access was revoked again since.
if (redis.call('HGET', KEYS[1], 'door') or '0') ~= ARGV[2] then return 0 end
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('DEL', KEYS[3])
return 1
