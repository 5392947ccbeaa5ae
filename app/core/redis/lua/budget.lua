-- The bytes of a session's prompts and kept answers, and of all sessions of its user: a hash of the user has the bytes of
-- each session. Needs prompts.lua and room.lua. ARGV[1] has besides: kept (s: until a prompt that has ended expires),
-- overhead (bytes of a prompt besides its texts), session_bytes, user_bytes (the budgets), counts (the hash's name, before
-- and after the user id), and reserve.
-- `answered` has the session's answers, as "bytes id", scored by expiry. The agent's history has them too, so they make
-- room for prompts, which are stored only here.
local answered = KEYS[13]
local user_id = redis.call('HGET', session, 'user_id') or ''
local counts = given.counts[1] .. user_id .. given.counts[2]

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
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', of(uuid, answered), '-inf', given.now)) do forget(uuid, member) end
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
