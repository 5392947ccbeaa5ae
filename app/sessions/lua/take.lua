-- Take a prompt, and wake the session it is for, with nothing in between. `change` is change.lua.
-- ARGV[1] has besides: digest (of the text), text, request_id, limit (of waiting prompts), most (not finished), reserve.
-- ARGV[2] is the change that wakes the session, ARGV[3] that of one whose files are still to be restored.
-- Answers {code, detail, the record, the message as far as it was known, 1 when an agent is there};
-- code is change.lua's, or "known" (nothing was done), "reused", "full" (detail says of what: prompts, or the bytes of
-- the session or its user), or "no_room" in Redis.
local digest = redis.call('HGET', message, 'digest')
local state = redis.call('HGET', message, 'state')
if digest and digest ~= given.digest then return {'reused', '', {}, {}, 0} end
if state and state ~= 'queued' then return {'known', '', {}, redis.call('HGETALL', message), 0} end

local bytes = #given.text + given.message_bytes
if not state then
  local waiting = tonumber(redis.call('HGET', session, 'waiting') or '0')
  if waiting >= given.limit or redis.call('LLEN', prompts) >= given.most then return {'full', 'prompts', {}, {}, 0} end
  if full(given.reserve) then return {'no_room', '', {}, {}, 0} end
  local of_session, of_user = over(bytes)
  local needed = math.max(of_session, of_user)
  if needed > 0 and needed > kept() then return {'full', of_session > kept() and 'session' or 'user', {}, {}, 0} end
  shed(needed)
end

local wake = redis.call('HEXISTS', session, 'restore_from') == 1 and ARGV[3] or ARGV[2]
local woken = change(KEYS, {wake})
if woken[1] ~= 'ok' and woken[1] ~= 'noop' then return {woken[1], woken[2], woken[3], {}, 0} end

release()
if not state then
  redis.call('HSET', message, 'state', 'queued', 'text', given.text, 'digest', given.digest,
    'created_at', given.now, 'request_id', given.request_id)
  redis.call('RPUSH', inbox, given.id)
  redis.call('RPUSH', prompts, given.id)
  charge(bytes)
  tell('queued')
end
count()
return {woken[1], woken[2], redis.call('HGETALL', session), redis.call('HGETALL', message), redis.call('EXISTS', agent)}
