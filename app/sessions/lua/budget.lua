-- What a session's prompts and kept answers take of Redis, and those of all sessions of its user: a hash of the user's has
-- the bytes of each session. It stands behind prompts.lua. ARGV[1] has besides: message_bytes (of one, besides its texts),
-- session_bytes, user_bytes (the budgets), and counts (the hash's name, before and after the user).
-- `answered` has the session's answers, as "bytes id", by when they go. They are in the agent's history as well, so they
-- make room for what is nowhere else.
local answered = KEYS[13]
local user_id = redis.call('HGET', session, 'user_id') or ''
local counts = given.counts[1] .. user_id .. given.counts[2]

local function of(uuid, name) return (string.gsub(name, given.uuid, uuid, 1)) end
local function without_id(name) return (string.gsub(name, '[^:]*$', '')) end
local function bytes_of(member) return tonumber(string.match(member, '^%d+')) end

-- Forget an answer of a session. A prompt that came again under its id is left alone.
local function forget(uuid, member)
  local name = without_id(of(uuid, message)) .. string.match(member, ' (.*)$')
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

-- Count a session's bytes anew, without the answers whose time is over.
local function recount(uuid)
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', of(uuid, answered), '-inf', given.now)) do forget(uuid, member) end
  local sum = 0
  for _, id in ipairs(redis.call('LRANGE', of(uuid, prompts), 0, -1)) do
    local length = redis.call('HSTRLEN', without_id(of(uuid, message)) .. id, 'text')
    if length > 0 then sum = sum + length + given.message_bytes end
  end
  for _, member in ipairs(redis.call('ZRANGE', of(uuid, answered), 0, -1)) do sum = sum + bytes_of(member) end
  note(uuid, sum)
end

-- Count so many bytes more, or fewer, once they are written. Where nothing was counted yet there may be more than these.
local function charge(bytes)
  local before = tonumber(redis.call('HGET', counts, given.uuid) or '0')
  if before > 0 and before + bytes > 0 then note(given.uuid, before + bytes) else recount(given.uuid) end
end

local function excess(bytes)
  local own, all = tonumber(redis.call('HGET', counts, given.uuid) or '0'), 0
  for _, each in ipairs(redis.call('HVALS', counts)) do all = all + tonumber(each) end
  return own + bytes - given.session_bytes, all + bytes - given.user_bytes
end

-- How many bytes too many so many more would be, by the session's budget and by the user's. What seems to be too much
-- is counted anew first.
local function over(bytes)
  local of_session, of_user = excess(bytes)
  if of_session <= 0 and of_user <= 0 then return of_session, of_user end
  recount(given.uuid)
  if of_user > 0 then
    for _, uuid in ipairs(redis.call('HKEYS', counts)) do recount(uuid) end
  end
  return excess(bytes)
end

-- How many bytes the session's answers have.
local function kept()
  local sum = 0
  for _, member in ipairs(redis.call('ZRANGE', answered, 0, -1)) do sum = sum + bytes_of(member) end
  return sum
end

-- Forget the oldest answers but the `spared` one, so many bytes at least, as far as there are any.
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
