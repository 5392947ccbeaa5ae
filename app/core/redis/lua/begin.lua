-- Begin an attempt at a session's intent, or at a requested backup, restore point or drill: take the lease and count the
-- attempt, in one step.
-- KEYS: session, lease, requests (of backups, restore points or drills). ARGV: uuid, generation ("" for a request), token,
-- ttl (ms), the field that counts the attempts.
-- Answers {code, the hash afterwards}; code is "ok", "done" (nothing is left to do) or "held" (another attempt has the
-- lease, and sends what is left at its end).
local session, lease, requests = unpack(KEYS)
local uuid, generation, token, ttl, tries = unpack(ARGV)
local newest, settled = unpack(redis.call('HMGET', session, 'generation', 'settled'))
local request = generation == ''
if not newest then return {'done', {}} end
fold(session)
if request then
  if not redis.call('ZSCORE', requests, uuid) then return {'done', {}} end
elseif newest ~= generation or tonumber(settled or '0') >= tonumber(generation) then
  return {'done', {}}
end

local holder = redis.call('GET', lease)
if holder and holder ~= token then return {'held', {}} end
-- A client whose answer was lost repeats the call with its token, and has begun only once.
if not holder then
  redis.call('SET', lease, token, 'PX', ttl)
  redis.call('HINCRBY', session, tries, 1)
  if not request then redis.call('HINCRBY', session, 'lease', 1) end
end
return {'ok', redis.call('HGETALL', session)}
