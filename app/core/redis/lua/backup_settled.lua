-- An attempt at the requested backups has ended. KEYS: session, backups:requested.
-- ARGV: uuid, the number of requests when it began, now. Answers 0 when another was requested since.
redis.call('HDEL', KEYS[1], 'backup_tries')
if (redis.call('HGET', KEYS[1], 'backup_asked') or '0') ~= ARGV[2] then
  redis.call('HSET', KEYS[1], 'backup_waits', ARGV[3])
  return 0
end
redis.call('HDEL', KEYS[1], 'backup_waits')
redis.call('ZREM', KEYS[2], ARGV[1])
return 1
