-- Change one session: its state, the intent behind it, or plain fields; all of it or nothing.
-- KEYS: session, events, intents, idle, expiry, sessions:all
-- ARGV: one JSON object:
--   uuid, now, expect {field: text}, set {field: text}, clear [field], clear_prefix (of fields to clear),
--   to (the new status), from [status], noop [status] (in these, only `touch` is done),
--   touch (someone asked for the session),
--   next_epoch (its token is revoked; the next start gives it another),
--   task (makes it a new intent, due at `due`), settle (the current intent is carried out),
--   idle_at (when to check whether it is idle), status_key, user_key (the names of those sets, without the value),
--   backups_key, in_use_key (the index of backups, and those in use),
--   ledger (see ledger.lua; left out where nothing begins or ends to cost),
--   event {type, data}, events_kept (how many), events_bytes (in how many), events_ttl (seconds, 0 for ever),
--   tombstone_ttl (seconds).
-- Answers {code, detail, the hash afterwards}; code is "ok", "noop", "missing", "stale", "illegal" or "in_use".
local session, events, intents, idle, expiry, all = unpack(KEYS)
local change = cjson.decode(ARGV[1])
local status = redis.call('HGET', session, 'status')
if not status then return {'missing', '', {}} end
fold(session)

local function answer(code, detail) return {code, detail, redis.call('HGETALL', session)} end
local function contains(list, value)
  for _, item in ipairs(list) do if item == value then return true end end
  return false
end

for field, value in pairs(change.expect) do
  if (redis.call('HGET', session, field) or '') ~= value then return answer('stale', field) end
end
-- What is being deleted can't be restored from, and a teardown must not delete the files after it. The exception
-- is a session that never got its files: its backup is the one it was to be restored from.
local from, last = change.set.restore_from, change.set.backup_generation and change.set.backup
if from and not restorable(from, change.backups_key) then return answer('stale', 'restore_from') end
if last and last ~= redis.call('HGET', session, 'restore_from') and not redis.call('ZSCORE', change.backups_key, last) then
  return answer('stale', 'backup')
end
local used = change.set.delete_erase and used_by_another(change.in_use_key, change.uuid)
if used then return answer('in_use', used) end
local already = change.to ~= '' and contains(change.noop, status)
if change.to ~= '' and not already and not contains(change.from, status) then return answer('illegal', status) end
if change.touch then
  local last_use = tonumber(redis.call('HGET', session, 'last_activity') or '0')
  -- A use never makes a session look older, whatever the clock shows.
  if last_use < tonumber(change.now) then redis.call('HSET', session, 'last_activity', change.now) end
  redis.call('HSET', session, 'signal_prompt', change.now)
  redis.call('HDEL', session, 'expiry_tries')
end
if already then return answer('noop', status) end

if change.ledger then keep_ledger(session, change.uuid, change.ledger, tonumber(change.now)) end
if change.clear_prefix ~= '' then
  for _, field in ipairs(redis.call('HKEYS', session)) do
    if string.sub(field, 1, #change.clear_prefix) == change.clear_prefix then redis.call('HDEL', session, field) end
  end
end
for field, value in pairs(change.set) do redis.call('HSET', session, field, value) end
if change.next_epoch then redis.call('HINCRBY', session, 'epoch', 1) end
for _, field in ipairs(change.clear) do redis.call('HDEL', session, field) end
if from then
  redis.call('HSET', change.in_use_key, change.uuid, from)
elseif contains(change.clear, 'restore_from') or change.to == 'terminated' then
  redis.call('HDEL', change.in_use_key, change.uuid)
end

if change.set.archived_at then
  redis.call('ZADD', 'sessions:archived', redis.call('HGET', session, 'created_at'), change.uuid)
elseif contains(change.clear, 'archived_at') or change.to == 'terminated' then
  redis.call('ZREM', 'sessions:archived', change.uuid)
end

if change.task ~= '' then
  redis.call('HINCRBY', session, 'generation', 1)
  redis.call('HSET', session, 'task', change.task, 'requested_at', change.now)
  redis.call('HDEL', session, 'tries')
  redis.call('ZADD', intents, change.due, change.uuid)
elseif change.settle then
  redis.call('HSET', session, 'settled', redis.call('HGET', session, 'generation'))
  redis.call('HDEL', session, 'tries')
  redis.call('ZREM', intents, change.uuid)
end

if change.to ~= '' and change.to ~= status then
  local born = redis.call('HGET', session, 'created_at')
  redis.call('HSET', session, 'status', change.to)
  redis.call('ZREM', change.status_key .. status, change.uuid)
  redis.call('ZADD', change.status_key .. change.to, change.to == 'terminated' and change.now or born, change.uuid)
  if change.idle_at ~= '0' then
    redis.call('ZADD', idle, change.idle_at, change.uuid)
  else
    redis.call('ZREM', idle, change.uuid)
  end
  if change.to == 'terminated' then
    redis.call('ZREM', all, change.uuid)
    redis.call('ZREM', expiry, change.uuid)
    local user = change.user_key .. redis.call('HGET', session, 'user_id')
    redis.call('ZREM', user .. ':sessions', change.uuid)
    redis.call('ZADD', user .. ':terminated', change.now, change.uuid)
    redis.call('EXPIRE', user .. ':terminated', change.tombstone_ttl)
    redis.call('EXPIRE', session, change.tombstone_ttl)
    if redis.call('HGET', session, 'delete_erase') == '1' then
      redis.call('ZADD', 'sessions:erasures', change.now, change.uuid)
    end
  end
end

if change.event.type ~= '' then
  log(events, change.events_kept, change.events_bytes, {change.event.type, change.event.data})
  if change.events_ttl > 0 then redis.call('EXPIRE', events, change.events_ttl) else redis.call('PERSIST', events) end
else
  redis.call('PUBLISH', events, '')
end
return answer('ok', status)
