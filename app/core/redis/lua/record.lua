-- Sessions: their records and indexes, their use, their events, and what is left after their end.

-- part room
-- Whether only the reserve is left, a share of `maxmemory` for work that frees memory.
local function full(reserve)
  local memory = redis.call('INFO', 'memory')
  local function read(name) return tonumber(string.match(memory, '\n' .. name .. ':(%d+)') or '0') end
  local limit = read('maxmemory')
  return limit > 0 and read('used_memory') - read('mem_not_counted_for_evict') > limit * (1 - reserve)
end

-- part events
-- A session's events, and the feed: the events of all sessions that GET /events shows, with what decides who sees them.
-- The feed keeps about the newest FEED_KEPT, in about FEED_BYTES of memory, as Redis guesses it from FEED_SAMPLES nodes
-- of the stream: to read all of them would take longer than all else here.
local FEED, FEED_KEPT, FEED_BYTES, FEED_SAMPLES = 'events', 10000, 4194304, 16

-- Drop the oldest entries until the stream takes no more than `bytes`; `samples` 0 counts exactly.
local function fit(stream, bytes, samples)
  local length = redis.call('XLEN', stream)
  while length > 1 and redis.call('MEMORY', 'USAGE', stream, 'SAMPLES', samples) > bytes do
    length = math.floor(length * 3 / 4)
    redis.call('XTRIM', stream, 'MAXLEN', length)
  end
end

-- What the feed has of an event's data. A user's own texts stay in the session's stream.
local FEED_FIELDS = {
  'status', 'reason', 'reason_code', 'backup', 'name', 'message_id', 'state', 'restore_point', 'saved_at', 'restore_from',
  'files_of', 'kept', 'fell_back', 'phase',
}

local FEED_KINDS = {
  state = true, backup = true, message = true, restore_point = true, files_lost = true, files_restored = true,
  rolled_back = true, drill_failed = true, phase = true,
}

-- A text without its private parts (app/process/private_text.py): names in marks, and the end of a log.
local function without_private(text)
  text = string.match(text, '^(.-) Last lines of its log:') or text
  local parts, at = {}, 1
  while true do
    local open = string.find(text, '“', at, true)
    if not open then break end
    table.insert(parts, string.sub(text, at, open - 1) .. '“…”')
    local _, close = string.find(text, '”', open, true)
    if not close then return table.concat(parts) end
    at = close + 1
  end
  return table.concat(parts) .. string.sub(text, at)
end

-- The data for the feed, nil for an event that it does not show.
local function for_feed(kind, data)
  if not FEED_KINDS[kind] then return nil end
  local read, told = pcall(cjson.decode, data)
  if not read or type(told) ~= 'table' then return nil end
  local shown = {}
  if kind == 'message' and told.state ~= 'processed' and told.state ~= 'failed' then return nil end
  -- The other steps end with a state.
  if kind == 'phase' and told.phase ~= 'archived' then return nil end
  -- Most sessions that sleep have nothing new to save.
  if kind == 'restore_point' and told.unchanged == true then return nil end
  for _, name in ipairs(FEED_FIELDS) do shown[name] = told[name] end
  if type(shown.reason) == 'string' then shown.reason = without_private(shown.reason) end
  return cjson.encode(shown)
end

-- Add an event of the session with this stream to the feed, if the feed shows events of its kind.
local function feed(stream, kind, data)
  local shown = for_feed(kind, data)
  if not shown then return end
  local session = string.match(stream, '^(.*):events$')
  local user_id, made_by, labels = unpack(redis.call('HMGET', session, 'user_id', 'made_by', 'labels'))
  if not user_id then return end
  -- A session's change never fails for the feed.
  local added = redis.pcall('XADD', FEED, 'MAXLEN', '~', FEED_KEPT, '*', 'uuid', string.match(session, '[^:]*$'),
    'user_id', user_id, 'made_by', made_by or '', 'labels', labels or '{}', 'type', kind, 'data', shown)
  if type(added) == 'table' and added.err then return end
  fit(FEED, FEED_BYTES, FEED_SAMPLES)
  redis.call('PUBLISH', FEED, '')
end

-- Add events, each a type and data, to a session's stream, and notify its followers. The stream keeps the newest `most`
-- events that fit into `bytes` of memory.
local function log(stream, most, bytes, added)
  for i = 1, #added, 2 do
    redis.call('XADD', stream, 'MAXLEN', most, '*', 'type', added[i], 'data', added[i + 1])
    feed(stream, added[i], added[i + 1])
  end
  fit(stream, bytes, 0)
  redis.call('PUBLISH', stream, '')
end

-- part pending_use
-- A session's use, which the gateway notes in a hash beside the record, as it may not write records. These fields are
-- newer than the record's. Only the fields of `USE_FIELDS` count, and only texts of their form.
-- needs: use_fields
local FORMS = {}

function FORMS.number(text)
  return string.find(text, '^%d+%.?%d*$') ~= nil and tonumber(text) < 1e11
end

function FORMS.count(text)
  return string.find(text, '^%d+$') ~= nil and FORMS.number(text)
end

function FORMS.signal(text)
  local at, till = string.match(text, '^(%S+) (%S+) ?%C*$')
  if at then return FORMS.number(at) and FORMS.number(till) end
  return FORMS.number(text)
end

function FORMS.note(text)
  if string.sub(text, 1, 1) ~= '{' then return false end
  if text == '{}' then return true end
  local read, note = pcall(cjson.decode, text)
  return read and type(note.since) == 'number' and note.since >= 0 and note.since < 1e11 and type(note.reason) == 'string'
end

function FORMS.services(text)
  local found, rest = 0, text == '' and '' or text .. ','
  while rest ~= '' do
    local name, port, state, left = string.match(rest, '^(%w[%w_-]*):(%d*):(%l+),(.*)$')
    local known = name and #name <= 32 and SERVICE_STATES[state]
    local possible = port == '' or (port and string.find(port, '^[1-9]%d?%d?%d?%d?$') and tonumber(port) <= 65535)
    if not (known and possible) then return false end
    found, rest = found + 1, left
  end
  return found <= SERVICES_MOST
end

local function well_formed(field, text)
  local form = USE_FIELDS[field]
  return form ~= nil and #text <= LONGEST_USE and FORMS[form](text)
end

local function pending_use(session)
  local flat, known = redis.call('HGETALL', session .. ':use'), {}
  for i = 1, #flat, 2 do if well_formed(flat[i], flat[i + 1]) then known[flat[i]] = flat[i + 1] end end
  return known
end

-- The record with its pending use, in the form of HGETALL.
local function merged(session)
  local flat = redis.call('HGETALL', session)
  if #flat == 0 then return flat end
  for field, text in pairs(pending_use(session)) do
    flat[#flat + 1] = field
    flat[#flat + 1] = text
  end
  return flat
end

-- Merge the pending use into the record, which leaves out fields at their default.
local function merge_use(session)
  for field, text in pairs(pending_use(session)) do
    if text == '0' or text == '{}' or text == '' then
      redis.call('HDEL', session, field)
    else
      redis.call('HSET', session, field, text)
    end
  end
  redis.call('UNLINK', session .. ':use')
end

-- part sources
-- What a session may be restored from.
local function being_erased(uuid)
  if redis.call('ZSCORE', 'sessions:erasures', uuid) then return true end
  local status, erase = unpack(redis.call('HMGET', 'session:' .. uuid, 'status', 'delete_erase'))
  return erase == '1' and (status == 'terminating' or status == 'terminated')
end

-- The backup or restore point of this session that another one is being restored from, nil for none.
local function used_by_another(in_use, uuid)
  local used = redis.call('HGETALL', in_use)
  for i = 1, #used, 2 do
    if used[i] ~= uuid and string.match(used[i + 1], '^%a+%-(%w+)%-') == uuid then return used[i + 1] end
  end
end

-- Whether files can be restored from this: a backup in the index (`backups`), or a restore point of a session.
local function restorable(from, backups)
  if being_erased(string.match(from, '^%a+%-(%w+)%-') or '') then return false end
  local uuid, id = string.match(from, '^point%-(%w+)%-(%w+)$')
  if uuid then return redis.call('HEXISTS', 'session:' .. uuid .. ':points', id) == 1 end
  return redis.call('ZSCORE', backups, from) ~= false
end

-- Whether a new session can still be restored from this later: restore points go with their session, except those that
-- were in use before.
local function lasting(from)
  local uuid = string.match(from, '^point%-(%w+)%-')
  local status = uuid and redis.call('HGET', 'session:' .. uuid, 'status')
  return not uuid or (status and status ~= 'terminating' and status ~= 'terminated')
end

-- part changes
-- Change one session: its state, the intent behind it, or plain fields; all of it or nothing.
-- `request` is a JSON object:
--   uuid, now, expect {field: text}, set {field: text}, clear [field], clear_prefix (of fields to clear),
--   to (the new status), from [status], noop [status] (in these, only `touch` is done),
--   touch (someone asked for the session),
--   next_epoch (its token is revoked; the next start gives it another),
--   task (makes it a new intent, due at `due`), settle (the current intent is carried out),
--   idle_at (when to check whether it is idle), status_key, user_key (the names of those sets, without the value),
--   backups_key, in_use_key (the index of backups, and those in use),
--   ledger (the intervals that begin or end to cost; left out where there are none),
--   event {type, data}, events_kept (how many), events_bytes (in how many), events_ttl (seconds, 0 for ever),
--   tombstone_ttl (seconds).
-- Answers {code, detail, the hash afterwards}; code is "ok", "noop", "missing", "stale", "illegal" or "in_use".
-- needs: events, pending_use, intervals, sources
-- keys: session, events, intents, idle, expiry, all
local function apply(request)
  local change = cjson.decode(request)
  local status = redis.call('HGET', session, 'status')
  if not status then return {'missing', '', {}} end
  merge_use(session)

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
  local own = last and last ~= redis.call('HGET', session, 'restore_from')
  if own and not redis.call('ZSCORE', change.backups_key, last) then return answer('stale', 'backup') end
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
end

-- script change
-- Make one change of a session. Answers as `apply`.
-- needs: changes
-- args: request
return apply(given.request)

-- script create
-- Record a new session, unless its user has reached the quota or the call has already created one. `quota` is -1 for
-- none, `due` when the intent is overdue and `expires_at` when the session expires, each 0 for never; `created_by_call`
-- is what the call has created ("" for a call without a name), `digest` that of its request, `call_kept` how long it is
-- remembered (s). `reserve` is the share of `room`, `fields` the record: field, value, ...
-- Answers the session's uuid, "exists", "quota", "reused" for a call with another digest before, "gone" when the backup
-- or restore point to restore from does not exist, or "no_room" in Redis. A recovered record has no quota, and is
-- stored without these checks.
-- needs: events, room, sources
-- keys: session, events, all, of_status, user_sessions, intents, expiry, backups, in_use, created_by_call
-- args: uuid, quota, created_at, due, expires_at, event, data, digest, call_kept, reserve, fields...
if created_by_call ~= '' then
  local made, digest = unpack(redis.call('HMGET', created_by_call, 'uuid', 'digest'))
  if made then return digest == given.digest and made or 'reused' end
end
if redis.call('EXISTS', session) == 1 then return 'exists' end
local quota = tonumber(given.quota)
-- What lies in the archive costs next to nothing, and doesn't count.
local function counted()
  local of_user = redis.call('ZCARD', user_sessions)
  return of_user < quota and of_user or of_user - #redis.call('ZINTER', 2, user_sessions, 'sessions:archived')
end
if quota >= 0 and counted() >= quota then return 'quota' end
local from, archived = '', false
for i = 1, #given.fields, 2 do
  if given.fields[i] == 'restore_from' then from = given.fields[i + 1] end
  if given.fields[i] == 'archived_at' then archived = true end
end
if from ~= '' and quota >= 0 and not (restorable(from, backups) and lasting(from)) then return 'gone' end
if quota >= 0 and full(given.reserve) then return 'no_room' end
if from ~= '' then redis.call('HSET', in_use, given.uuid, from) end
redis.call('UNLINK', session .. ':use')
redis.call('HSET', session, unpack(given.fields))
if archived then redis.call('ZADD', 'sessions:archived', given.created_at, given.uuid) end
for _, set in ipairs({all, of_status, user_sessions}) do redis.call('ZADD', set, given.created_at, given.uuid) end
if given.due ~= '0' then redis.call('ZADD', intents, given.due, given.uuid) end
if given.expires_at ~= '0' then redis.call('ZADD', expiry, given.expires_at, given.uuid) end
redis.call('XADD', events, '*', 'type', given.event, 'data', given.data)
redis.call('PUBLISH', events, '')
feed(events, given.event, given.data)
if created_by_call ~= '' then
  redis.call('HSET', created_by_call, 'uuid', given.uuid, 'digest', given.digest)
  redis.call('EXPIRE', created_by_call, given.call_kept)
end
return given.uuid

-- script signals
-- Note activity signals of a session, unless it is being deleted. `newest` is the time of the newest signal, `fields`
-- are field, text, ... Answers 0 when the session does not exist.
-- needs: pending_use
-- keys: session
-- args: newest, fields...
local status, last, tries = unpack(redis.call('HMGET', session, 'status', 'last_activity', 'expiry_tries'))
if not status or status == 'terminating' or status == 'terminated' then return 0 end
local use = session .. ':use'
if tonumber(pending_use(session).last_activity or last or '0') < tonumber(given.newest) then
  redis.call('HSET', use, 'last_activity', given.newest)
end
redis.call('HSET', use, unpack(given.fields))
if tries then redis.call('HSET', use, 'expiry_tries', '0') end
return 1

-- script measured
-- Note what a workspace uses, unless its session is being deleted. `kept` is in s, `disk_mib` what is used of the
-- volume.
-- Answers 0 when nothing was noted.
-- keys: session, resources
-- args: field, sample, kept, disk_mib
local status = redis.call('HGET', session, 'status')
if not status or status == 'terminating' or status == 'terminated' then return 0 end
redis.call('HSET', resources, given.field, given.sample)
redis.call('EXPIRE', resources, given.kept)
redis.call('HSET', session .. ':use', 'disk_used_mib', given.disk_mib)
return 1

-- script noted
-- Note a field of a session's use. Answers 0 when the session does not exist.
-- keys: session
-- args: field, text
local status = redis.call('HGET', session, 'status')
if not status or status == 'terminated' then return 0 end
redis.call('HSET', session .. ':use', given.field, given.text)
return 1

-- script append
-- Add events, each a type and data, to a session's stream.
-- needs: events
-- keys: events
-- args: most, bytes, added...
log(events, given.most, tonumber(given.bytes), given.added)
return 1

-- script shrink_feed
-- Drop the oldest entries of the feed until it takes no more than so many bytes.
-- needs: events
-- keys: feed_stream
-- args: bytes
fit(feed_stream, tonumber(given.bytes), FEED_SAMPLES)
return 1

-- script erase
-- Request the erasure of what is left of a session that is terminated or has no record; it is overdue at `due`.
-- Answers {"ok" or "living" or "in_use", the backup in use or ""}.
-- needs: sources
-- keys: session, erasures, in_use
-- args: uuid, due
local status = redis.call('HGET', session, 'status')
if status and status ~= 'terminated' then return {'living', ''} end
local used = used_by_another(in_use, given.uuid)
if used then return {'in_use', used} end
redis.call('ZADD', erasures, 'NX', given.due, given.uuid)
return {'ok', ''}

-- script erased
-- Remove what Redis has of a session whose stored files are erased. Its tombstone, and what the cost ledger has of it,
-- keep a pseudonym for the user, and no labels, which may name a person. The user's totals stay: they name no session,
-- and budgets count by them. JSON lists: `months` (those that the ledger keeps), `keep` (fields of the tombstone),
-- `unlink` (keys), `leave` (sorted sets of uuids).
-- keys: session, erasures, events
-- args: uuid, pseudonym, months, keep, unlink, leave
local uuid, ledger = given.uuid, 'ledger:' .. given.uuid

local function rename(set, to)
  local score = redis.call('ZSCORE', set, uuid)
  if not score then return end
  local left = redis.call('PTTL', set)
  redis.call('ZREM', set, uuid)
  redis.call('ZADD', to, score, uuid)
  if left > 0 and left > redis.call('PTTL', to) then redis.call('PEXPIRE', to, left) end
end

local user = redis.call('HGET', session, 'user_id') or redis.call('HGET', ledger, 'user_id')
if user and user ~= given.pseudonym then
  for _, month in ipairs(cjson.decode(given.months)) do
    local tail = ':' .. month .. ':sessions'
    rename('costs:user:' .. user .. tail, 'costs:user:' .. given.pseudonym .. tail)
  end
  rename('user:' .. user .. ':terminated', 'user:' .. given.pseudonym .. ':terminated')
  redis.call('HDEL', 'user:' .. user .. ':prompt_bytes', uuid)
  for _, hash in ipairs({ledger, session}) do
    if redis.call('EXISTS', hash) == 1 then redis.call('HSET', hash, 'user_id', given.pseudonym) end
  end
end
-- A call that still runs keeps no answer about it (`keep_answer` of access.lua).
if redis.call('EXISTS', session) == 1 then redis.call('HSET', session, 'delete_erase', '1') end

if redis.call('EXISTS', ledger) == 1 then redis.call('HSET', ledger, 'labels', '{}') end

local kept = {}
for _, field in ipairs(cjson.decode(given.keep)) do kept[field] = true end
for _, field in ipairs(redis.call('HKEYS', session)) do
  if not kept[field] then redis.call('HDEL', session, field) end
end
redis.call('UNLINK', events, unpack(cjson.decode(given.unlink)))
for _, set in ipairs(cjson.decode(given.leave)) do redis.call('ZREM', set, uuid) end
redis.call('ZREM', erasures, uuid)
redis.call('PUBLISH', events, '')
return 1
