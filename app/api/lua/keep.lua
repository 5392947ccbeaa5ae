-- Keep an answer for its Idempotency-Key, and so many of its owner, of which the oldest go.
-- One that names a session that is being erased, or was, is not kept: its erasure may be over.
-- KEYS: the answer, the owner's answers, then of each session that it names the record and what must go with the session.
-- ARGV: the answer's text, ttl (s), now, most, 1 if the owner's answers are all on the first session that it names.
for i = 3, #KEYS, 2 do
  if redis.call('HGET', KEYS[i], 'delete_erase') == '1' then
    redis.call('DEL', KEYS[1])
    return 0
  end
end

local function note(list, name)
  redis.call('ZREMRANGEBYSCORE', list, '-inf', ARGV[3] - ARGV[2])
  redis.call('ZADD', list, ARGV[3], name)
  redis.call('EXPIRE', list, ARGV[2])
end

redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
note(KEYS[2], KEYS[1])
for i = 4, #KEYS, 2 do note(KEYS[i], KEYS[1]) end
if ARGV[5] == '1' then note(KEYS[4], KEYS[2]) end
while redis.call('ZCARD', KEYS[2]) > tonumber(ARGV[4]) do
  local oldest = redis.call('ZPOPMIN', KEYS[2])[1]
  redis.call('DEL', oldest)
  for i = 4, #KEYS, 2 do redis.call('ZREM', KEYS[i], oldest) end
end
return 1
