-- What the scripts on a session's prompts share; it stands in front of each of them.
-- Their KEYS begin with those of change.lua; then come: the inbox, the prompts held back while the session
-- sleeps, all that are not finished, the sessions with waiting prompts, the agent, the message, the answers.
-- Their first ARGV is a JSON object with: uuid, id, now, marker, due (when the sweep looks next), events_kept, events_bytes.
local session, events = KEYS[1], KEYS[2]
local inbox, held, prompts, pending, agent, message = KEYS[7], KEYS[8], KEYS[9], KEYS[10], KEYS[11], KEYS[12]
local given = cjson.decode(ARGV[1])

-- Keep the counts in the record, by which a session is shown and judged idle, true to the lists. A session without a
-- waiting prompt stays pending where its agent is owed a call back.
local function count()
  local ready = redis.call('LLEN', inbox)
  if redis.call('LPOS', inbox, given.marker) then ready = ready - 1 end
  local waiting = ready + redis.call('LLEN', held)
  local unfinished = redis.call('LLEN', prompts) - waiting
  if ready > 0 then
    redis.call('ZADD', pending, 'NX', given.due, given.uuid)
  elseif redis.call('HEXISTS', agent, 'leaving') == 0 then
    redis.call('ZREM', pending, given.uuid)
  end
  if redis.call('EXISTS', session) == 0 then return end
  for field, number in pairs({waiting = waiting, unfinished = unfinished}) do
    if number > 0 then redis.call('HSET', session, field, number) else redis.call('HDEL', session, field) end
  end
end

-- The agent gets on with its work.
local function touch()
  if redis.call('EXISTS', session) == 0 then return end
  for _, field in ipairs({'last_activity', 'signal_turn'}) do
    local last = tonumber(redis.call('HGET', session, field) or '0')
    if last < tonumber(given.now) then redis.call('HSET', session, field, given.now) end
  end
end

local function tell(state, reason)
  local data = {message_id = given.id, state = state}
  if reason and reason ~= '' then data.reason = reason end
  log(events, given.events_kept, given.events_bytes, {'message', cjson.encode(data)})
end

-- The agent gets no more prompts, until it is called back or another one calls.
local function leave()
  if redis.call('EXISTS', agent) == 1 then redis.call('HSET', agent, 'leaving', given.now) end
end

-- Prompts held back are older than those that came since, and go before them.
local function release()
  while redis.call('LLEN', held) > 0 do redis.call('LPUSH', inbox, redis.call('RPOP', held)) end
end
