-- The audit: entries of who did what, their search, and a pseudonym for the user of an erased session.

-- part audit_fit
-- Remove the oldest entries of a stream, and their `counts` (nil for none), until both fit into `bytes` of memory, in
-- steps; while Redis has only its reserve left, until the stream has at most `before` entries.
-- needs: room
local function fit_audit(stream, counts, bytes, reserve, before)
  local function drop(number)
    for _, entry in ipairs(redis.call('XRANGE', stream, '-', '+', 'COUNT', number)) do
      redis.call('XDEL', stream, entry[1])
      if counts then redis.call('HDEL', counts, entry[1]) end
    end
  end
  local function size(key) return key and redis.call('MEMORY', 'USAGE', key) or 0 end
  local length = redis.call('XLEN', stream)
  if before > 0 and length > before and full(reserve) then
    drop(length - before)
    length = before
  end
  -- Removing everything at once would block Redis: what is too much after four steps goes with later entries.
  for _ = 1, 4 do
    if length <= 1 or size(stream) + size(counts) <= bytes then break end
    local number = math.min(500, math.ceil(length / 64))
    drop(number)
    length = length - number
  end
end

-- script audit_add
-- Add an entry to the audit, which may take so many bytes. `entry` is field, value, ...
-- needs: audit_fit
-- keys: stream
-- args: bytes, reserve, entry...
local before = redis.call('XLEN', stream)
redis.call('XADD', stream, '*', unpack(given.entry))
fit_audit(stream, nil, tonumber(given.bytes), given.reserve, before)
return 1

-- script audit_count
-- Add an entry for a repeatable act, or count it with the same act's entry in this window. A caller has so many
-- distinct entries in a window; all further acts share one. `counts` has repetitions by id. The windows are: `same` of
-- the same act, `number` of the caller's number of entries, `rest` of the caller's shared entry; each lasts `seconds`.
-- `entry` and `shared` are JSON: field, value, ...
-- Answers 1 for a new entry, 0 for a counted one.
-- needs: audit_fit
-- keys: stream, counts, same, number, rest
-- args: bytes, reserve, seconds, distinct, entry, shared
local function again(window)
  local id = redis.call('GET', window)
  if not id or #redis.call('XRANGE', stream, id, id) == 0 then return false end
  redis.call('HINCRBY', counts, id, 1)
  return true
end

if again(same) then return 0 end
local window, entry = same, given.entry
if tonumber(redis.call('GET', number) or '0') >= tonumber(given.distinct) then
  if again(rest) then return 0 end
  window, entry = rest, given.shared
end
local before = redis.call('XLEN', stream)
local id = redis.call('XADD', stream, '*', unpack(cjson.decode(entry)))
redis.call('SET', window, id, 'EX', given.seconds)
if window == same and redis.call('INCR', number) == 1 then redis.call('EXPIRE', number, given.seconds) end
fit_audit(stream, counts, tonumber(given.bytes), given.reserve, before)
return 1

-- script audit_scan
-- Search a stream of the audit, from the newest entry to the oldest. `counts` is "" for a stream without repetitions.
-- `newest` is the first id to read, or +; `look` how many to read, `find` how many to find; `uuid` and `by` are "" for
-- any.
-- Answers the entries found, each {id, {field, value, ...}, repetitions}, the last id read, and 1 when it is the
-- oldest.
-- keys: stream, counts
-- args: newest, look, find, uuid, by
local found, last = {}, ''
local wanted = {uuid = given.uuid ~= '' and given.uuid or nil, by = given.by ~= '' and given.by or nil}

local function fits(fields)
  for i = 1, #fields, 2 do
    local value = wanted[fields[i]]
    if value and value ~= fields[i + 1] then return false end
  end
  return true
end

local entries = redis.call('XREVRANGE', stream, given.newest, '-', 'COUNT', given.look)
for _, entry in ipairs(entries) do
  last = entry[1]
  if fits(entry[2]) then
    found[#found + 1] = {last, entry[2], counts ~= '' and redis.call('HGET', counts, last) or '0'}
    if #found == tonumber(given.find) then break end
  end
end
return {found, last, #entries < tonumber(given.look) and 1 or 0}

-- script audit_rewrite
-- Copy the next entries of a stream of the audit, with a pseudonym for a session's user. When all are copied the copy
-- takes the stream's place, with the same ids. `last` is the last id copied ("" at the beginning), `number` how many to
-- copy.
-- Answers the last id copied, "" at the end.
-- keys: stream, copy
-- args: uuid, pseudonym, last, number
if given.last == '' then redis.call('UNLINK', copy) end
local entries = redis.call('XRANGE', stream, given.last == '' and '-' or '(' .. given.last, '+', 'COUNT', given.number)
for _, entry in ipairs(entries) do
  local fields, of_session, user = entry[2], false, nil
  for i = 1, #fields, 2 do
    if fields[i] == 'uuid' then of_session = fields[i + 1] == given.uuid end
    if fields[i] == 'user_id' and fields[i + 1] ~= '' then user = i + 1 end
  end
  if of_session and user then fields[user] = given.pseudonym end
  redis.call('XADD', copy, entry[1], unpack(fields))
end
if #entries == tonumber(given.number) then return entries[#entries][1] end
if redis.call('EXISTS', copy) == 1 then redis.call('RENAME', copy, stream) end
return ''
