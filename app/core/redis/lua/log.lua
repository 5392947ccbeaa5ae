-- Add events, each a type and data, to a session's stream, and notify its followers. The stream keeps the newest `most`
-- events that fit into `bytes` of memory.
local function log(stream, most, bytes, events)
  for i = 1, #events, 2 do
    redis.call('XADD', stream, 'MAXLEN', most, '*', 'type', events[i], 'data', events[i + 1])
  end
  local length = redis.call('XLEN', stream)
  while length > 1 and redis.call('MEMORY', 'USAGE', stream, 'SAMPLES', 0) > bytes do
    length = math.floor(length * 3 / 4)
    redis.call('XTRIM', stream, 'MAXLEN', length)
  end
  redis.call('PUBLISH', stream, '')
end
