-- Keep an answer for its Idempotency-Key, and so many of its owner, of which the oldest go.
-- One of a session that is being erased, or was, is not kept: its erasure may be over.
-- KEYS: the answer, the owner's answers, the session that it is about, if there is one, and if that is not the owner, the
-- answers that name it.
-- ARGV: the answer's text, ttl (s), now, most.
if KEYS[3] and redis.call('HGET', KEYS[3], 'delete_erase') == '1' then
  redis.call('DEL', KEYS[1])
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
redis.call('ZADD', KEYS[2], ARGV[3], KEYS[1])
redis.call('EXPIRE', KEYS[2], ARGV[2])
if KEYS[4] then
  redis.call('ZADD', KEYS[4], ARGV[3], KEYS[1])
  redis.call('EXPIRE', KEYS[4], ARGV[2])
end
while redis.call('ZCARD', KEYS[2]) > tonumber(ARGV[4]) do redis.call('DEL', redis.call('ZPOPMIN', KEYS[2])[1]) end
return 1
