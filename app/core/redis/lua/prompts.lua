-- Sessions' prompts: from their arrival until they are finished, what they take of Redis, and where their agents are.

-- part prompts
-- What all scripts on a session's prompts begin with. `held` has the prompts held back while the session sleeps,
-- `prompts` all unfinished ones, `pending` the sessions with waiting prompts; `due` is when the sweep checks.
-- needs: events, pending_use
-- keys: session, events, inbox, held, prompts, pending, agent, prompt
-- args: uuid, id, now, marker, due, events_kept, events_bytes
local use = session .. ':use'

local function lives()
  local status = redis.call('HGET', session, 'status')
  return status and status ~= 'terminated'
end

-- Update the counts, which the API shows and the idle policy uses, from the lists. A session without a waiting prompt
-- stays pending while its agent still has to be resumed.
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
  local known = pending_use(session)
  for _, field in ipairs({'last_activity', 'signal_turn'}) do
    local last = string.match(known[field] or redis.call('HGET', session, field) or '0', '^%S+')
    if tonumber(last) < tonumber(given.now) then redis.call('HSET', use, field, given.now) end
  end
end

local function tell(state, reason)
  local data = {message_id = given.id, state = state}
  if reason and reason ~= '' then data.reason = reason end
  log(events, given.events_kept, tonumber(given.events_bytes), {'message', cjson.encode(data)})
end

-- The agent gets no more prompts until it is resumed or another one registers.
local function leave()
  if redis.call('EXISTS', agent) == 1 then redis.call('HSET', agent, 'leaving', given.now) end
end

-- Prompts held back are older than those in the inbox, and go before them.
local function release()
  while redis.call('LLEN', held) > 0 do redis.call('LPUSH', inbox, redis.call('RPOP', held)) end
end

-- part budget
-- The bytes of a session's prompts and kept answers, and of all sessions of its user: a hash of the user has the bytes
-- of each session. `answered` has the session's answers, as "bytes id", scored by expiry. The agent's history has them
-- too, so they make room for prompts, which are stored only here. `kept` is in s until a prompt that has ended expires,
-- `overhead` the bytes of a prompt besides its texts; `session_bytes` and `user_bytes` are the budgets, `counts` is the
-- name of the user's hash with %s for the user id.
-- needs: prompts, room
-- keys: answered
-- args: kept, overhead, session_bytes, user_bytes, counts, reserve
local user_id = redis.call('HGET', session, 'user_id') or ''
local counts = string.format(given.counts, user_id)

local function of(uuid, name) return (string.gsub(name, given.uuid, uuid, 1)) end
local function without_id(name) return (string.gsub(name, '[^:]*$', '')) end
local function bytes_of(member) return tonumber(string.match(member, '^%d+')) end

-- Delete an answer of a session, unless its id is used by a new prompt.
local function forget(uuid, member)
  local name = without_id(of(uuid, prompt)) .. string.match(member, ' (.*)$')
  local state = redis.call('HGET', name, 'state')
  if state == 'processed' or state == 'failed' then redis.call('DEL', name) end
  redis.call('ZREM', of(uuid, answered), member)
end

local function note(uuid, bytes)
  if bytes > 0 and user_id ~= '' then
    redis.call('HSET', counts, uuid, bytes)
  else
    redis.call('HDEL', counts, uuid)
  end
end

-- Count a session's bytes anew, without expired answers.
local function recount(uuid)
  local expired = redis.call('ZRANGEBYSCORE', of(uuid, answered), '-inf', given.now)
  for _, member in ipairs(expired) do forget(uuid, member) end
  local sum = 0
  for _, id in ipairs(redis.call('LRANGE', of(uuid, prompts), 0, -1)) do
    local length = redis.call('HSTRLEN', without_id(of(uuid, prompt)) .. id, 'text')
    if length > 0 then sum = sum + length + given.overhead end
  end
  for _, member in ipairs(redis.call('ZRANGE', of(uuid, answered), 0, -1)) do sum = sum + bytes_of(member) end
  note(uuid, sum)
end

-- Add to the session's count after writing so many bytes (or freeing, below 0). Without a count yet, count everything.
local function charge(bytes)
  local before = tonumber(redis.call('HGET', counts, given.uuid) or '0')
  if before > 0 and before + bytes > 0 then note(given.uuid, before + bytes) else recount(given.uuid) end
end

local function excess(bytes)
  local own, all = tonumber(redis.call('HGET', counts, given.uuid) or '0'), 0
  for _, each in ipairs(redis.call('HVALS', counts)) do all = all + tonumber(each) end
  return own + bytes - given.session_bytes, all + bytes - given.user_bytes
end

-- By how many bytes so many more would exceed the session's budget and the user's. An excess is counted anew first.
local function over(bytes)
  local of_session, of_user = excess(bytes)
  if of_session <= 0 and of_user <= 0 then return of_session, of_user end
  recount(given.uuid)
  if of_user > 0 then
    for _, uuid in ipairs(redis.call('HKEYS', counts)) do recount(uuid) end
  end
  return excess(bytes)
end

-- The bytes of the session's answers.
local function kept()
  local sum = 0
  for _, member in ipairs(redis.call('ZRANGE', answered, 0, -1)) do sum = sum + bytes_of(member) end
  return sum
end

-- Delete the oldest answers except `spared`, until so many bytes are freed or none is left.
local function shed(bytes, spared)
  for _, member in ipairs(bytes > 0 and redis.call('ZRANGE', answered, 0, -1) or {}) do
    if bytes <= 0 then return end
    if member ~= spared then
      forget(given.uuid, member)
      charge(-bytes_of(member))
      bytes = bytes - bytes_of(member)
    end
  end
end

-- Keep the prompt, which has ended, until it expires. Its answer and reason have so many `bytes`, and it takes so many
-- `more` than before. It can't be refused, but it can replace older ones.
local function keep(bytes, more)
  local answer = string.format('%d %s', bytes + given.overhead, given.id)
  redis.call('EXPIRE', prompt, given.kept)
  redis.call('ZADD', answered, tonumber(given.now) + given.kept, answer)
  redis.call('EXPIRE', answered, given.kept)
  charge(more)
  shed(math.max(over(0)), answer)
  if full(given.reserve) then shed(math.huge, answer) end
end

-- part durations
-- Count how long a prompt took until now, in a histogram (app/core/redis/counters.py). `bounds` (s) is a JSON list.
-- needs: prompts
-- keys: times
-- args: bounds
local function timed(name)
  local created = tonumber(redis.call('HGET', prompt, 'created_at') or '0')
  if created == 0 then return end
  local seconds = math.max(0, tonumber(given.now) - created)
  local bounds, bucket = cjson.decode(given.bounds), 0
  while bucket < #bounds and seconds > bounds[bucket + 1] do bucket = bucket + 1 end
  redis.call('HINCRBY', times, name .. ':' .. bucket, 1)
  redis.call('HINCRBY', times, name .. ':ms', math.floor(seconds * 1000 + 0.5))
end

-- script take
-- Store a prompt and wake its session, in one step. `digest` is that of the text, `limit` of waiting prompts, `most` of
-- unfinished ones; `rolled_back` is the reason of a prompt that a rollback undid. `wake` is the change that wakes the
-- session, `restore` the one for a session whose files are not restored yet.
-- Answers {code, detail, the record, the prompt, 1 when an agent is registered}; code is that of `apply`, or "known"
-- (the prompt waits no more, and no session was woken), "reused", "full" (detail: "prompts", or "session" or "user" for
-- the bytes), or "no_room" in Redis.
-- needs: changes, budget
-- args: digest, text, request_id, traceparent, limit, most, rolled_back, wake, restore
local digest = redis.call('HGET', prompt, 'digest')
local state = redis.call('HGET', prompt, 'state')
if digest and digest ~= given.digest then return {'reused', '', {}, {}, 0} end
if state and state ~= 'queued' then return {'known', '', {}, redis.call('HGETALL', prompt), 0} end

local bytes = #given.text + given.overhead
if not state then
  if full(given.reserve) then return {'no_room', '', {}, {}, 0} end
  -- A rollback undid this prompt, and it has expired since. Its end is kept again, so that who sent it can read it.
  if redis.call('LPOS', session .. ':undone', given.id) then
    redis.call('HSET', prompt, 'state', 'failed', 'digest', given.digest, 'reason', given.rolled_back,
      'request_id', given.request_id, 'created_at', given.now, 'processed_at', given.now, 'rolled_back_at', given.now)
    keep(#given.rolled_back, #given.rolled_back + given.overhead)
    return {'known', '', {}, redis.call('HGETALL', prompt), 0}
  end
  local waiting = tonumber(pending_use(session).waiting or redis.call('HGET', session, 'waiting') or '0')
  if waiting >= tonumber(given.limit) or redis.call('LLEN', prompts) >= tonumber(given.most) then
    return {'full', 'prompts', {}, {}, 0}
  end
  local of_session, of_user = over(bytes)
  local needed = math.max(of_session, of_user)
  if needed > 0 and needed > kept() then return {'full', of_session > kept() and 'session' or 'user', {}, {}, 0} end
  shed(needed)
end

local to_restore, to_undo = unpack(redis.call('HMGET', session, 'restore_from', 'rollback_to'))
local woken = apply((to_restore or to_undo) and given.restore or given.wake)
if woken[1] ~= 'ok' and woken[1] ~= 'noop' then return {woken[1], woken[2], woken[3], {}, 0} end

release()
if not state then
  redis.call('HSET', prompt, 'state', 'queued', 'text', given.text, 'digest', given.digest,
    'created_at', given.now, 'request_id', given.request_id)
  if given.traceparent ~= '' then redis.call('HSET', prompt, 'traceparent', given.traceparent) end
  redis.call('RPUSH', inbox, given.id)
  redis.call('RPUSH', prompts, given.id)
  charge(bytes)
  tell('queued')
end
count()
return {woken[1], woken[2], merged(session), redis.call('HGETALL', prompt), redis.call('EXISTS', agent)}

-- script delivered
-- The agent has a prompt. Answers 1 when the prompt was waiting until now.
-- needs: prompts
local waited = redis.call('LREM', inbox, 1, given.id) + redis.call('LREM', held, 1, given.id)
if redis.call('HGET', prompt, 'state') == 'queued' then
  redis.call('HSET', prompt, 'state', 'delivered', 'delivered_at', given.now)
  tell('delivered')
  touch()
end
redis.call('HDEL', agent, 'failures', 'retry_at')
count()
return waited

-- script finish
-- A prompt is finished. `state` is processed or failed, `response` JSON or "", `code` why it failed. Answers 0 when it
-- is unknown or was finished before.
-- needs: budget, durations
-- args: state, response, reason, code
local state = redis.call('HGET', prompt, 'state')
if not state or state == 'processed' or state == 'failed' then return 0 end
local before = redis.call('HSTRLEN', prompt, 'text')
local after = #given.response + #given.reason
for _, list in ipairs({inbox, held, prompts}) do redis.call('LREM', list, 1, given.id) end
redis.call('HSET', prompt, 'state', given.state, 'processed_at', given.now, 'response', given.response,
  'reason', given.reason)
redis.call('HDEL', prompt, 'text')
keep(after, after - before)
if given.state == 'processed' then
  timed('answered')
else
  redis.call('HINCRBY', times, 'failed:' .. given.code, 1)
end
tell(given.state, given.reason)
touch()
count()
return 1

-- script first_token
-- The first token of a prompt's answer has come. Counts how long it took, once for each prompt.
-- needs: durations
if redis.call('HEXISTS', prompt, 'state') == 0 or redis.call('HEXISTS', prompt, 'begun_at') == 1 then return 0 end
redis.call('HSET', prompt, 'begun_at', given.now)
timed('first_token')
return 1

-- script hold
-- A session is about to be stopped: its agent gets no more prompts, and those waiting are held back and wake nothing.
-- `generation` is that of the intent to stop it. Answers 0 when a newer intent exists.
-- needs: prompts
-- args: generation
if redis.call('HGET', session, 'generation') ~= given.generation then return 0 end
leave()
for _, id in ipairs(redis.call('LRANGE', inbox, 0, -1)) do
  if id ~= given.marker then
    redis.call('LREM', inbox, 1, id)
    redis.call('RPUSH', held, id)
  end
end
redis.call('ZREM', pending, given.uuid)
count()
-- Callers that wait for one of these prompts read that it is held back.
redis.call('PUBLISH', events, '')
return 1

-- script release
-- A session is about to be started: the prompts held back may be delivered. An agent that was told to stop must be
-- resumed, which makes the session pending like a waiting prompt.
-- needs: prompts
release()
count()
if redis.call('HEXISTS', agent, 'leaving') == 1 then redis.call('ZADD', pending, 'NX', given.due, given.uuid) end
return 1

-- script close
-- A session is being deleted, and its prompts are finished. Their results stay readable until they expire, and no
-- longer count towards a budget. `counts` is as in `budget`.
-- needs: prompts
-- keys: answered
-- args: counts
redis.call('DEL', held, prompts, agent, answered, session .. ':undone')
redis.call('ZREM', pending, given.uuid)
local user_id = redis.call('HGET', session, 'user_id') or ''
redis.call('HDEL', string.format(given.counts, user_id), given.uuid)
return 1

-- script rolled_back
-- Prompts whose effects a rollback undid. `ids` are of prompts that have ended, `most` is how many are remembered.
-- `prompt` is the key of a prompt with any id. Answers how many were not marked before; one that has expired is not
-- made anew, but remembered too.
-- needs: prompts
-- args: most, ids...
local undone = session .. ':undone'
local marked = 0
for _, id in ipairs(given.ids) do
  local name = string.gsub(prompt, '[^:]*$', '') .. id
  if redis.call('EXISTS', name) == 1 and redis.call('HEXISTS', name, 'rolled_back_at') == 0 then
    redis.call('HSET', name, 'rolled_back_at', given.now)
    marked = marked + 1
  end
  redis.call('LREM', undone, 0, id)
  redis.call('RPUSH', undone, id)
end
redis.call('LTRIM', undone, -given.most, -1)
return marked

-- script agent_here
-- Register a session's agent. `pod` is its name, `boot` "" if unknown. Answers 0 for an agent that is being stopped:
-- its session is deleted, or falling asleep.
-- needs: prompts
-- args: address, pod, boot
local status, generation, settled = unpack(redis.call('HMGET', session, 'status', 'generation', 'settled'))
if not status or status == 'terminating' or status == 'terminated' then return 0 end
if status == 'sleeping' and generation ~= settled then return 0 end
local boot = redis.call('HGET', agent, 'boot')
if boot and given.boot == '' then return 1 end
if boot ~= given.boot then
  -- Another process, maybe on another volume, may lack the delivered prompts. It drops those it knows.
  local list = redis.call('LRANGE', prompts, 0, -1)
  for i = #list, 1, -1 do
    local delivered = string.gsub(prompt, '[^:]*$', '') .. list[i]
    if redis.call('HGET', delivered, 'state') == 'delivered' then
      redis.call('HSET', delivered, 'state', 'queued')
      redis.call('LPUSH', inbox, list[i])
    end
  end
end
local leaving = redis.call('HGET', agent, 'leaving')
redis.call('DEL', agent)
redis.call('HSET', agent, 'address', given.address, 'name', given.pod, 'boot', given.boot, 'at', given.now)
-- This may be the process that was told to stop, and whose call comes late.
if leaving and (boot == '' or boot == given.boot) then redis.call('HSET', agent, 'leaving', leaving) end
count()
return 1

-- script agent_failed
-- A session's agent failed to take a prompt: retry after a pause that doubles each time, from `first` to `longest` (s).
-- `boot` is of the agent that was tried. Answers 0 when another agent registered.
-- needs: prompts
-- args: boot, first, longest
if redis.call('HGET', agent, 'boot') ~= given.boot then return 0 end
local times = redis.call('HINCRBY', agent, 'failures', 1)
local retry_at = tonumber(given.now) + math.min(given.first * 2 ^ math.min(times - 1, 30), tonumber(given.longest))
redis.call('HSET', agent, 'retry_at', string.format('%.3f', retry_at))
redis.call('ZADD', pending, 'XX', string.format('%.3f', retry_at), given.uuid)
return 1

-- script agent_leaves
-- A session's agent is about to be stopped: it gets no more prompts.
-- needs: prompts
leave()
return 1

-- script agent_stays
-- A session's agent was resumed: its prompts may be delivered. `generation` is that of the intent. Answers 0 when a
-- newer intent exists.
-- needs: prompts
-- args: generation
if redis.call('HGET', session, 'generation') ~= given.generation then return 0 end
redis.call('HDEL', agent, 'leaving', 'failures', 'retry_at')
count()
return 1
