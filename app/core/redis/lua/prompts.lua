-- The part that all scripts on a session's prompts begin with.
-- Their KEYS begin with those of change.lua; then come: the inbox, the prompts held back while the session sleeps, all
-- unfinished prompts, the sessions with waiting prompts, the agent, the prompt, the answers, the times of all prompts.
-- Their first ARGV is a JSON object with: uuid, id, now, marker, due (when the sweep checks), events_kept, events_bytes.
local session, events = KEYS[1], KEYS[2]
local inbox, held, prompts, pending, agent, prompt = KEYS[7], KEYS[8], KEYS[9], KEYS[10], KEYS[11], KEYS[12]
local given = cjson.decode(ARGV[1])
local use = session .. ':use'

local function lives()
  local status = redis.call('HGET', session, 'status')
  return status and status ~= 'terminated'
end

-- Update the counts, which the API shows and the idle policy uses, from the lists. A session without a waiting prompt stays
-- pending while its agent still has to be resumed.
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
  if lives() then redis.call('HSET', use, 'waiting', waiting, 'unfinished', unfinished) end
end

-- The agent works: note activity.
local function touch()
  if not lives() then return end
  local known = noted(session)
  for _, field in ipairs({'last_activity', 'signal_turn'}) do
    local last = string.match(known[field] or redis.call('HGET', session, field) or '0', '^%S+')
    if tonumber(last) < tonumber(given.now) then redis.call('HSET', use, field, given.now) end
  end
end

local function tell(state, reason)
  local data = {message_id = given.id, state = state}
  if reason and reason ~= '' then data.reason = reason end
  log(events, given.events_kept, given.events_bytes, {'message', cjson.encode(data)})
end

-- The agent gets no more prompts until it is resumed or another one registers.
local function leave()
  if redis.call('EXISTS', agent) == 1 then redis.call('HSET', agent, 'leaving', given.now) end
end

-- Prompts held back are older than those in the inbox, and go before them.
local function release()
  while redis.call('LLEN', held) > 0 do redis.call('LPUSH', inbox, redis.call('RPOP', held)) end
end
