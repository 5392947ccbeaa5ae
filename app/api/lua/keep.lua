-- Keep an answer for its Idempotency-Key, and so many of its caller, and of that caller on one session; the oldest go.
-- One that names a session that is being erased, or was, is not kept: its erasure may be over.
-- KEYS: the answer, the caller's answers, those of the caller on this session or on none, then of each session that the
-- answer names the record and what must go with the session.
-- ARGV: the answer's text, ttl (s), now, most of the caller, most of those, 1 if those are on the first of the sessions.
for i = 4, #KEYS, 2 do
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

local function bound(list, most)
  while redis.call('ZCARD', list) > tonumber(most) do
    local oldest = redis.call('ZPOPMIN', list)[1]
    redis.call('DEL', oldest)
    for i = 2, 3 do redis.call('ZREM', KEYS[i], oldest) end
    for i = 5, #KEYS, 2 do redis.call('ZREM', KEYS[i], oldest) end
  end
end

redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
for i = 2, 3 do note(KEYS[i], KEYS[1]) end
for i = 5, #KEYS, 2 do note(KEYS[i], KEYS[1]) end
if ARGV[6] == '1' then note(KEYS[5], KEYS[3]) end
bound(KEYS[2], ARGV[4])
bound(KEYS[3], ARGV[5])
return 1
