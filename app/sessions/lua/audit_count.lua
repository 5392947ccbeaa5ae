-- Add an entry of what may be asked without end, or count it with the one that its window has. Of a caller so many are
-- told apart in a window, all others are one.
-- KEYS: stream, counts (by id, how often it came again), then windows: of the same thing, of how many the caller has,
--   of all others of the caller.
-- ARGV: bytes, reserve, s of a window, how many are told apart, the entry and that of all others (JSON: field, value, ...)
-- Answers 1 for a new entry, 0 where it was counted.
local stream, counts, same, number, rest = unpack(KEYS)

local function again(window)
  local id = redis.call('GET', window)
  if not id or #redis.call('XRANGE', stream, id, id) == 0 then return false end
  redis.call('HINCRBY', counts, id, 1)
  return true
end

if again(same) then return 0 end
local window, entry = same, ARGV[5]
if tonumber(redis.call('GET', number) or '0') >= tonumber(ARGV[4]) then
  if again(rest) then return 0 end
  window, entry = rest, ARGV[6]
end
local before = redis.call('XLEN', stream)
local id = redis.call('XADD', stream, '*', unpack(cjson.decode(entry)))
redis.call('SET', window, id, 'EX', ARGV[3])
if window == same and redis.call('INCR', number) == 1 then redis.call('EXPIRE', number, ARGV[3]) end
fit(stream, counts, tonumber(ARGV[1]), ARGV[2], before)
return 1
