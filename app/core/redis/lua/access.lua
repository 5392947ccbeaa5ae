-- Who may call and connect: rates, kept answers of calls, sign-ins, login links, and the end of access.

-- script count
-- Count a request in several fixed windows at once, and read what the request is about on the same way. `record` is ""
-- for none, `seconds` the length of a window, `cost` how much to count.
-- Answers, for each window, how much is counted in it and the milliseconds it has left, then the record, flat.
-- needs: pending_use
-- keys: record, windows...
-- args: seconds, cost
local answer = {}
for _, window in ipairs(windows) do
  answer[#answer + 1] = redis.call('INCRBY', window, given.cost)
  local left = redis.call('PTTL', window)
  if left < 0 then
    redis.call('EXPIRE', window, given.seconds)
    left = given.seconds * 1000
  end
  answer[#answer + 1] = left
end
answer[#answer + 1] = record ~= '' and merged(record) or {}
return answer

-- script keep_answer
-- Keep an answer for its Idempotency-Key, and so many of its caller, and of that caller on one session; the oldest go.
-- One that names a session that is being erased, or was, is not kept: its erasure may be over. `of_caller` are the
-- caller's answers, `of_both` those of the caller on this session or on none; `named` has, for each session that the
-- answer names, the record and what must go with the session. `ttl` is in s, `most_of_caller` and `most_of_both` are
-- kept; `on_first` is 1 if `of_both` is on the first of the sessions.
-- keys: answer, of_caller, of_both, named...
-- args: text, ttl, now, most_of_caller, most_of_both, on_first
for i = 1, #named, 2 do
  if redis.call('HGET', named[i], 'delete_erase') == '1' then
    redis.call('DEL', answer)
    return 0
  end
end

local function note(list, name)
  redis.call('ZREMRANGEBYSCORE', list, '-inf', given.now - given.ttl)
  redis.call('ZADD', list, given.now, name)
  redis.call('EXPIRE', list, given.ttl)
end

local lists = {of_caller, of_both}
for i = 2, #named, 2 do table.insert(lists, named[i]) end

local function bound(list, most)
  while redis.call('ZCARD', list) > tonumber(most) do
    local oldest = redis.call('ZPOPMIN', list)[1]
    redis.call('DEL', oldest)
    for _, each in ipairs(lists) do redis.call('ZREM', each, oldest) end
  end
end

redis.call('SET', answer, given.text, 'EX', given.ttl)
for _, list in ipairs(lists) do note(list, answer) end
if given.on_first == '1' then note(named[2], of_both) end
bound(of_caller, given.most_of_caller)
bound(of_both, given.most_of_both)
return 1

-- script sign_in
-- Sign a person in. Of the sign-ins of one key, or of one person of the provider, the newest stay and the others end.
-- Nothing is checked for room: operators must get in when Redis is full, and the sign-ins of a key are few. `sign_ins`
-- are those of the same key or person, newest first; `person` is JSON, `seconds` until it ends, `most` stay.
-- keys: sign_in, sign_ins
-- args: person, seconds, most
redis.call('SET', sign_in, given.person, 'EX', given.seconds)
for _, name in ipairs(redis.call('LRANGE', sign_ins, 0, -1)) do
  if redis.call('EXISTS', name) == 0 then redis.call('LREM', sign_ins, 1, name) end
end
redis.call('LPUSH', sign_ins, sign_in)
for _, name in ipairs(redis.call('LRANGE', sign_ins, given.most, -1)) do redis.call('DEL', name) end
redis.call('LTRIM', sign_ins, 0, given.most - 1)
redis.call('EXPIRE', sign_ins, given.seconds)
return 1

-- script link
-- Read a session and redeem a login link, which is valid for one lookup only. `lookup` is an id by which the lookup is
-- recognised when it is repeated after a lost answer.
-- Answers the link's target (uuid:access epoch:port), "" for an unknown or used link, and the session's hash.
-- needs: pending_use
-- keys: session, link
-- args: lookup
local text = redis.call('GET', link) or ''
local taken, meant = string.match(text, '^(%x+) (.*)$')
if not taken then
  meant = text
  if text ~= '' then redis.call('SET', link, given.lookup .. ' ' .. text, 'KEEPTTL') end
elseif taken ~= given.lookup then
  meant = ''
end
return {meant, merged(session)}

-- script revoke
-- Revoke all access to a session's workspace, revoke its token if a process may have it, and schedule the disconnect.
-- `request` is the change, `due` when to check the disconnect. Answers as `apply`.
-- needs: changes
-- keys: disconnects, tries
-- args: request, uuid, due
local answer = apply(given.request)
if answer[1] ~= 'ok' then return answer end
local status, generation, settled = unpack(redis.call('HMGET', session, 'status', 'generation', 'settled'))
redis.call('DEL', tries)
if status == 'sleeping' and generation == settled then
  -- Nothing runs, and nothing starts before this script ends. The last token ended with the sleep, and the next one is
  -- not in use yet.
  redis.call('ZREM', disconnects, given.uuid)
else
  redis.call('HINCRBY', session, 'epoch', 1)
  redis.call('ZADD', disconnects, given.due, given.uuid)
end
return {answer[1], answer[2], redis.call('HGETALL', session)}

-- script disconnected
-- All connections to a session's workspace from before an access epoch have ended. Answers 0 when access was revoked
-- again since.
-- keys: session, disconnects, tries
-- args: uuid, access_epoch
if (redis.call('HGET', session, 'access_epoch') or '0') ~= given.access_epoch then return 0 end
redis.call('ZREM', disconnects, given.uuid)
redis.call('DEL', tries)
return 1
