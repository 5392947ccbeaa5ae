-- Keep an answer for its Idempotency-Key, and so many of its owner, of which the oldest go.
-- KEYS: the answer, the owner's answers. ARGV: the answer's text, ttl (s), now, most.
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
redis.call('ZADD', KEYS[2], ARGV[3], KEYS[1])
redis.call('EXPIRE', KEYS[2], ARGV[2])
while redis.call('ZCARD', KEYS[2]) > tonumber(ARGV[4]) do redis.call('DEL', redis.call('ZPOPMIN', KEYS[2])[1]) end
return 1
