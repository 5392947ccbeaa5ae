-- Remove the oldest entries of a stream, and their `counts` (nil for none), until both fit into `bytes` of memory, in
-- steps; while Redis has only its reserve left, until the stream has at most `before` entries.
local function fit(stream, counts, bytes, reserve, before)
  local function drop(number)
    for _, entry in ipairs(redis.call('XRANGE', stream, '-', '+', 'COUNT', number)) do
      redis.call('XDEL', stream, entry[1])
      if counts then redis.call('HDEL', counts, entry[1]) end
    end
  end
  local function size(key) return key and redis.call('MEMORY', 'USAGE', key) or 0 end
  local length = redis.call('XLEN', stream)
  if before > 0 and length > before and full(reserve) then
    drop(length - before)
    length = before
  end
  -- Removing everything at once would block Redis: what is too much after four steps goes with later entries.
  for _ = 1, 4 do
    if length <= 1 or size(stream) + size(counts) <= bytes then break end
    local number = math.min(500, math.ceil(length / 64))
    drop(number)
    length = length - number
  end
end
