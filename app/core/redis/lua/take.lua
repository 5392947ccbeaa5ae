-- Store a prompt and wake its session, in one step. `change` is change.lua.
-- ARGV[1] has besides: digest (of the text), text, request_id, traceparent ("" for none), limit (of waiting prompts),
-- most (of unfinished ones), rolled_back (the reason of a prompt that a rollback undid).
-- ARGV[2] is the change that wakes the session, ARGV[3] the one for a session whose files are not restored yet.
-- Answers {code, detail, the record, the prompt, 1 when an agent is registered}; code is change.lua's, or "known" (the
-- prompt waits no more, and no session was woken), "reused", "full" (detail: "prompts", or "session" or "user" for the
-- bytes), or "no_room" in Redis.
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
  local waiting = tonumber(noted(session).waiting or redis.call('HGET', session, 'waiting') or '0')
  if waiting >= given.limit or redis.call('LLEN', prompts) >= given.most then return {'full', 'prompts', {}, {}, 0} end
  local of_session, of_user = over(bytes)
  local needed = math.max(of_session, of_user)
  if needed > 0 and needed > kept() then return {'full', of_session > kept() and 'session' or 'user', {}, {}, 0} end
  shed(needed)
end

local lacks_files = redis.call('HEXISTS', session, 'restore_from') == 1 or redis.call('HEXISTS', session, 'rollback_to') == 1
local wake = lacks_files and ARGV[3] or ARGV[2]
local woken = change(KEYS, {wake})
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
return {woken[1], woken[2], whole(session), redis.call('HGETALL', prompt), redis.call('EXISTS', agent)}
