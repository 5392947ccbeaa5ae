-- Sign a person in. Of the sign-ins of one key, or of one person of the provider, the newest stay and the others end.
-- Nothing is checked for room: operators must get in when Redis is full, and the sign-ins of a key are few.
-- KEYS: the sign-in, the list of those of the same key or person, newest first. ARGV: who it is (JSON), s until it ends,
--   how many stay.
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
for _, name in ipairs(redis.call('LRANGE', KEYS[2], 0, -1)) do
  if redis.call('EXISTS', name) == 0 then redis.call('LREM', KEYS[2], 1, name) end
end
redis.call('LPUSH', KEYS[2], KEYS[1])
for _, name in ipairs(redis.call('LRANGE', KEYS[2], ARGV[3], -1)) do redis.call('DEL', name) end
redis.call('LTRIM', KEYS[2], 0, ARGV[3] - 1)
redis.call('EXPIRE', KEYS[2], ARGV[2])
return 1
