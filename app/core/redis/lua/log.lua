-- The feed: the events of all sessions that GET /events shows, with what decides who sees them. It keeps about the newest
-- FEED_KEPT, in about FEED_BYTES of memory, as Redis guesses it from FEED_SAMPLES nodes of the stream: to read all of
-- them would take longer than all else here.
local FEED, FEED_KEPT, FEED_BYTES, FEED_SAMPLES = 'events', 10000, 4194304, 16

-- Drop the oldest entries until the stream takes no more than `bytes`; `samples` 0 counts exactly.
local function fit(stream, bytes, samples)
  local length = redis.call('XLEN', stream)
  while length > 1 and redis.call('MEMORY', 'USAGE', stream, 'SAMPLES', samples) > bytes do
    length = math.floor(length * 3 / 4)
    redis.call('XTRIM', stream, 'MAXLEN', length)
  end
end

-- What the feed has of an event's data. A user's own texts stay in the session's stream.
local FEED_FIELDS = {'status', 'reason', 'reason_code', 'backup', 'name', 'message_id', 'state', 'restore_point', 'saved_at',
  'restore_from', 'files_of', 'kept', 'fell_back', 'phase'}

local FEED_KINDS = {state = true, backup = true, message = true, restore_point = true, files_lost = true, files_restored = true,
  rolled_back = true, drill_failed = true, phase = true}

-- A text without its private parts (app/process/private_text.py): names in marks, and the end of a log.
local function without_private(text)
  text = string.match(text, '^(.-) Last lines of its log:') or text
  local parts, at = {}, 1
  while true do
    local open = string.find(text, '“', at, true)
    if not open then break end
    table.insert(parts, string.sub(text, at, open - 1) .. '“…”')
    local _, close = string.find(text, '”', open, true)
    if not close then return table.concat(parts) end
    at = close + 1
  end
  return table.concat(parts) .. string.sub(text, at)
end

-- The data for the feed, nil for an event that it does not show.
local function for_feed(kind, data)
  if not FEED_KINDS[kind] then return nil end
  local read, told = pcall(cjson.decode, data)
  if not read or type(told) ~= 'table' then return nil end
  local shown = {}
  if kind == 'message' and told.state ~= 'processed' and told.state ~= 'failed' then return nil end
  -- The other steps end with a state.
  if kind == 'phase' and told.phase ~= 'archived' then return nil end
  -- Most sessions that sleep have nothing new to save.
  if kind == 'restore_point' and told.unchanged == true then return nil end
  for _, name in ipairs(FEED_FIELDS) do shown[name] = told[name] end
  if type(shown.reason) == 'string' then shown.reason = without_private(shown.reason) end
  return cjson.encode(shown)
end

-- Add an event of the session with this stream to the feed, if the feed shows events of its kind.
local function feed(stream, kind, data)
  local shown = for_feed(kind, data)
  if not shown then return end
  local session = string.match(stream, '^(.*):events$')
  local user_id, made_by, labels = unpack(redis.call('HMGET', session, 'user_id', 'made_by', 'labels'))
  if not user_id then return end
  -- A session's change never fails for the feed.
  local added = redis.pcall('XADD', FEED, 'MAXLEN', '~', FEED_KEPT, '*', 'uuid', string.match(session, '[^:]*$'), 'user_id', user_id,
    'made_by', made_by or '', 'labels', labels or '{}', 'type', kind, 'data', shown)
  if type(added) == 'table' and added.err then return end
  fit(FEED, FEED_BYTES, FEED_SAMPLES)
  redis.call('PUBLISH', FEED, '')
end

-- Add events, each a type and data, to a session's stream, and notify its followers. The stream keeps the newest `most`
-- events that fit into `bytes` of memory.
local function log(stream, most, bytes, events)
  for i = 1, #events, 2 do
    redis.call('XADD', stream, 'MAXLEN', most, '*', 'type', events[i], 'data', events[i + 1])
    feed(stream, events[i], events[i + 1])
  end
  fit(stream, bytes, 0)
  redis.call('PUBLISH', stream, '')
end
