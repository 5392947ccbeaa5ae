-- Add an entry for a repeatable act, or count it with the same act's entry in this window. A caller has so many distinct
-- entries in a window; all further acts share one.
-- KEYS: stream, counts (repetitions by id), then windows: of the same act, of the caller's number of entries, of the
--   caller's shared entry.
-- ARGV: bytes, reserve, s of a window, distinct entries, the entry and the shared one (JSON: field, value, ...)
-- Answers 1 for a new entry, 0 for a counted one.
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
