-- Count a request in several fixed windows at once.
-- KEYS: the windows' counters. ARGV: the length of a window (s), how much to count.
-- Answers, for each, how much is counted in the running window and the milliseconds it has left.
local answer = {}
for _, key in ipairs(KEYS) do
  answer[#answer + 1] = redis.call('INCRBY', key, ARGV[2])
  local left = redis.call('PTTL', key)
  if left < 0 then
    redis.call('EXPIRE', key, ARGV[1])
    left = ARGV[1] * 1000
  end
  answer[#answer + 1] = left
end
return answer
