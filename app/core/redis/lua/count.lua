-- Count a request in several fixed windows at once, and read what the request is about on the same way.
-- KEYS: the windows' counters, then the session to read ("" for none).
-- ARGV: the length of a window (s), how much to count.
-- Answers, for each window, how much is counted in it and the milliseconds it has left, then the record, flat.
local answer = {}
for i = 1, #KEYS - 1 do
  answer[#answer + 1] = redis.call('INCRBY', KEYS[i], ARGV[2])
  local left = redis.call('PTTL', KEYS[i])
  if left < 0 then
    redis.call('EXPIRE', KEYS[i], ARGV[1])
    left = ARGV[1] * 1000
  end
  answer[#answer + 1] = left
end
answer[#answer + 1] = KEYS[#KEYS] ~= '' and whole(KEYS[#KEYS]) or {}
return answer
