-- What sessions use and cost: intervals, backups, tokens, and the totals and samples that are shown.

-- part meters
-- The cost ledger: what each session used, by day (UTC), and running totals of the service, of users and of API keys.
-- Amounts are whole numbers, by kind:
--   c:{size}        ms that processes of this size ran
--   d:{size}:{MiB}  s that a volume of so many MiB existed, of a session of this size
--   b               KiB * s of backups
--   r               KiB * s of what restore points keep in the store
--   p:{model}, t:{model}   tokens that a model read and wrote
-- What runs on is metered: of all that began in a month, OPEN has the sum of the rates (`n:`), and that of rate times
-- the time from the month's beginning (`s:`). So the running total of any owner is read without reading its sessions.
-- app/core/redis/keys.py has the names, app/core/costs/ reads them.
local DAY, MOST_DAYS, KEPT_DAYS = 86400, 400, 427

-- As Redis adds it; Lua would write a negative zero as -0.
local function whole_number(value) return value == 0 and '0' or string.format('%.0f', value) end

-- The month of a day (counted from 1970-01-01): its name, its first day, and the day's number in it.
-- H. Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days.
local function month_of(day)
  local z = day + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local shifted = math.floor((5 * doy + 2) / 153)
  local number = doy - math.floor((153 * shifted + 2) / 5) + 1
  local month = shifted < 10 and shifted + 3 or shifted - 9
  local year = yoe + era * 400 + (month <= 2 and 1 or 0)
  return string.format('%04d-%02d', year, month), day - number + 1, number
end

-- Who pays: from the record, or what the ledger kept of it.
local function payer_of(uuid, session, user)
  local function read(hash) return redis.call('HMGET', hash, 'user_id', 'made_by', 'size', 'labels', 'created_at') end
  local found = read(session)
  if not found[1] then found = read('ledger:' .. uuid) end
  return {
    uuid = uuid, user = found[1] or user or '', key = found[2] or '', size = found[3] or 'standard',
    labels = found[4] or '{}', created = found[5] or '0',
  }
end

local function owners(payer)
  local names = {'costs:all', 'costs:user:' .. payer.user}
  if payer.key ~= '' then names[3] = 'costs:key:' .. payer.key end
  return names
end

local function describe(payer)
  local name = 'ledger:' .. payer.uuid
  if redis.call('EXISTS', name) == 0 then
    redis.call('HSET', name, 'user_id', payer.user, 'made_by', payer.key, 'size', payer.size, 'labels', payer.labels,
      'created_at', payer.created)
  end
  redis.call('EXPIRE', name, KEPT_DAYS * DAY)
end

-- Book amounts of a kind, by day. A month is kept until 13 months after its end, by the clock of who changes it.
local function book(payer, kind, amounts, now)
  local months, total = {}, 0
  for day, amount in pairs(amounts) do
    local month, first, number = month_of(day)
    local left = math.floor((first + KEPT_DAYS) * DAY - now)
    if left > 0 then
      local name = 'ledger:' .. payer.uuid .. ':' .. month
      redis.call('HINCRBY', name, string.format('%02d:%s', number, kind), whole_number(amount))
      months[month] = months[month] or {sum = 0, left = left}
      months[month].sum = months[month].sum + amount
    end
    total = total + amount
  end
  if total == 0 then return end
  describe(payer)
  for month, booked in pairs(months) do
    local sets = {'costs:sessions:' .. month, 'costs:user:' .. payer.user .. ':' .. month .. ':sessions'}
    for _, set in ipairs(sets) do
      redis.call('ZADD', set, payer.created, payer.uuid)
      redis.call('EXPIRE', set, booked.left)
    end
    redis.call('EXPIRE', 'ledger:' .. payer.uuid .. ':' .. month, booked.left)
    for _, owner in ipairs(owners(payer)) do
      redis.call('HINCRBY', owner .. ':' .. month, kind, whole_number(booked.sum))
      redis.call('EXPIRE', owner .. ':' .. month, booked.left)
    end
  end
  redis.call('HINCRBY', 'costs:all:ever', kind, whole_number(total))
end

-- From `since` on (in units, so many a second) something of this kind costs; `sign` -1 takes that back.
local function meter(payer, kind, rate, since, units, sign)
  local month, first = month_of(math.floor(since / units / DAY))
  local late = rate * (since - first * DAY * units)
  for _, owner in ipairs(owners(payer)) do
    for field, amount in pairs({['n:' .. month .. ':' .. kind] = rate, ['s:' .. month .. ':' .. kind] = late}) do
      if redis.call('HINCRBY', owner .. ':open', field, whole_number(sign * amount)) == 0 then
        redis.call('HDEL', owner .. ':open', field)
      end
    end
  end
end

-- The time from `since` to `till` by day, times the rate; at most so many days.
local function by_day(rate, since, till, units)
  local amounts, length = {}, DAY * units
  local from = math.max(since, till - MOST_DAYS * length)
  while from < till do
    local day = math.floor(from / length)
    local ends = math.min(till, (day + 1) * length)
    amounts[day] = rate * (ends - from)
    from = ends
  end
  return amounts
end

local function in_ms(text) return math.floor(tonumber(text) * 1000 + 0.5) end
local function in_s(text) return math.floor(tonumber(text)) end

-- part intervals
-- Intervals of a session that cost: of its processes, of its volume and of its restore points.
-- needs: meters

-- Begin and end the interval of a session's restore points: each change of their size ends it, and begins the next.
local function keep_points(session, payer, told, now)
  local since, kib = unpack(redis.call('HMGET', session, 'points_since', 'points_kib'))
  local from, size = told.points_from, told.points_kib
  if since and not told.points_until and (not from or size == kib or tonumber(from) < tonumber(since)) then return end
  if since then
    meter(payer, 'r', tonumber(kib), in_s(since), 1, -1)
    book(payer, 'r', by_day(tonumber(kib), in_s(since), in_s(told.points_until or from), 1), now)
    redis.call('HDEL', session, 'points_since', 'points_kib')
  end
  -- A maker that lost its lease may come after the end.
  if from and redis.call('HGET', session, 'status') ~= 'terminated' then
    redis.call('HSET', session, 'points_since', from, 'points_kib', size)
    meter(payer, 'r', tonumber(size), in_s(from), 1, 1)
    describe(payer)
  end
end

-- Begin and end the intervals of a session's processes, of its volume and of its restore points. `told` may have (s since
-- the epoch, as texts):
--   ran_until: the processes have ended; an interval that began later is a newer one, and goes on
--   never_ran: they had not begun
--   runs_from: they run since then; moves the beginning of an open interval, and is ignored before the last end
--   kept_until: the volume is gone
--   kept_from, mib: it exists since then
--   points_until: the restore points are gone
--   points_from, points_kib: the restore points keep so much since then; ignored before the last such figure
-- An interval is booked and closed in one step, so it is booked once, whoever is killed and whatever is repeated.
local function keep_ledger(session, uuid, told, now)
  local payer = payer_of(uuid, session)
  local since, last, kept, mib = unpack(
    redis.call('HMGET', session, 'compute_since', 'compute_until', 'disk_since', 'disk_mib'))
  local kind = 'c:' .. payer.size
  local function end_run()
    meter(payer, kind, 1, in_ms(since), 1000, -1)
    redis.call('HDEL', session, 'compute_since')
    redis.call('ZREM', 'costs:running', uuid)
    since = false
  end
  if since and told.ran_until and tonumber(since) <= tonumber(told.ran_until) then
    book(payer, kind, by_day(1, in_ms(since), in_ms(told.ran_until), 1000), now)
    end_run()
    last = told.ran_until
    redis.call('HSET', session, 'compute_until', last)
  elseif since and told.never_ran then
    end_run()
  end
  if told.runs_from and tonumber(told.runs_from) >= tonumber(last or '0') and told.runs_from ~= since then
    if since then end_run() end
    redis.call('HSET', session, 'compute_since', told.runs_from)
    redis.call('ZADD', 'costs:running', told.runs_from, uuid)
    meter(payer, kind, 1, in_ms(told.runs_from), 1000, 1)
    describe(payer)
  end
  if kept and told.kept_until then
    kind = 'd:' .. payer.size .. ':' .. mib
    meter(payer, kind, 1, in_s(kept), 1, -1)
    book(payer, kind, by_day(1, in_s(kept), in_s(told.kept_until), 1), now)
    redis.call('HDEL', session, 'disk_since', 'disk_mib')
  elseif not kept and told.kept_from then
    redis.call('HSET', session, 'disk_since', told.kept_from, 'disk_mib', told.mib)
    meter(payer, 'd:' .. payer.size .. ':' .. told.mib, 1, in_s(told.kept_from), 1, 1)
    describe(payer)
  end
  keep_points(session, payer, told, now)
end

-- part stored
-- The end of a backup's costs, which begin in `index`.
-- needs: meters
local function stop_metering(backup, uuid, session)
  local user, since, metered = unpack(redis.call('HMGET', backup, 'user_id', 'created_at', 'metered'))
  local payer = payer_of(uuid, session, user)
  local kib, key = string.match(metered, '^(%d+) (.*)$')
  payer.user, payer.key = user, key
  meter(payer, 'b', tonumber(kib), in_s(since), 1, -1)
  return payer, since
end

local function book_backup(payer, since, size, now)
  book(payer, 'b', by_day(math.ceil(size / 1024), in_s(since), in_s(now), 1), tonumber(now))
end

-- script index
-- Put a backup into the index, unless one of that name is being deleted. From its creation on it costs. `sets` are
-- those it belongs to, `fields` its hash: field, value, ...
-- Answers 0 when it is being deleted.
-- needs: meters
-- keys: retired, backup, session, sets...
-- args: name, created_at, uuid, user_id, kib, fields...
if redis.call('ZSCORE', retired, given.name) then return 0 end
redis.call('HSET', backup, unpack(given.fields))
for _, set in ipairs(sets) do redis.call('ZADD', set, given.created_at, given.name) end
if redis.call('HEXISTS', backup, 'metered') == 0 then
  local payer = payer_of(given.uuid, session, given.user_id)
  payer.user = given.user_id
  -- The backup's end takes the same rate from the same owners, whatever the record has by then.
  redis.call('HSET', backup, 'metered', given.kib .. ' ' .. payer.key)
  meter(payer, 'b', tonumber(given.kib), in_s(given.created_at), 1, 1)
end
return 1

-- script unindex
-- Take a backup without files out of the index; what it cost was booked when these were deleted. `user_backups` is the
-- name of its user's set, with %s for the user id.
-- needs: stored
-- keys: backup, session, backups, session_backups
-- args: name, uuid, user_backups
local user = redis.call('HGET', backup, 'user_id')
for _, set in ipairs({backups, session_backups}) do redis.call('ZREM', set, given.name) end
if user then
  stop_metering(backup, given.uuid, session)
  redis.call('ZREM', string.format(given.user_backups, user), given.name)
  redis.call('DEL', backup)
end
return 1

-- script retire
-- Take a backup out of the index, after which its files are deleted; unless a session needs it. `user_backups` is as in
-- `unindex`; `protect` is "living" for the newest backup of a living session, "any" for that of any session, "" for
-- none.
-- Answers "retired" (also when it was before), "gone", "in_use" or "newest".
-- needs: stored
-- keys: backups, session_backups, backup, retired, in_use, session
-- args: name, now, uuid, user_backups, protect
local name = given.name
if not redis.call('ZSCORE', backups, name) then
  return redis.call('ZSCORE', retired, name) and 'retired' or 'gone'
end
for _, used in ipairs(redis.call('HVALS', in_use)) do if used == name then return 'in_use' end end

-- A teardown deletes the session's files after this backup of them.
local status, last = unpack(redis.call('HMGET', session, 'status', 'backup'))
if status == 'terminating' and last == name then return 'in_use' end

-- The session keeps its newest backup and its newest complete one.
local living = status and status ~= 'terminated'
if given.protect == 'any' or (given.protect == 'living' and living) then
  local newest = redis.call('ZREVRANGE', session_backups, 0, -1)
  if newest[1] == name then return 'newest' end
  local prefix = string.sub(backup, 1, #backup - #name)
  for _, each in ipairs(newest) do
    if redis.call('HGET', prefix .. each, 'complete') ~= '0' then
      if each == name then return 'newest' end
      break
    end
  end
end

local user_id, size = unpack(redis.call('HMGET', backup, 'user_id', 'size'))
if user_id and size then
  local payer, since = stop_metering(backup, given.uuid, session)
  book_backup(payer, since, tonumber(size), given.now)
end
if user_id then redis.call('ZREM', string.format(given.user_backups, user_id), name) end
redis.call('ZREM', backups, name)
redis.call('ZREM', session_backups, name)
redis.call('DEL', backup)
redis.call('ZADD', retired, given.now, name)
return 'retired'

-- script spend
-- Count the tokens of a request to a model, once, and book them in the cost ledger. `once` marks it as counted while
-- the call may be repeated. `kept_of_session`, `kept_of_day` and `kept_once` are in s, `day` counts since 1970-01-01;
-- `prompt` tokens were read, `completion` written; `counts` are field, count, ...
-- Answers 0 when it was counted before.
-- needs: meters
-- keys: tokens, user_tokens, once, session
-- args: kept_of_session, kept_of_day, kept_once, total, uuid, user_id, day, model, prompt, completion, counts...
if not redis.call('SET', once, '1', 'NX', 'EX', given.kept_once) then return 0 end
for i = 1, #given.counts, 2 do redis.call('HINCRBY', tokens, given.counts[i], given.counts[i + 1]) end
redis.call('EXPIRE', tokens, given.kept_of_session)
redis.call('INCRBY', user_tokens, given.total)
redis.call('EXPIRE', user_tokens, given.kept_of_day)
local payer, day = payer_of(given.uuid, session, given.user_id), tonumber(given.day)
for prefix, amount in pairs({p = tonumber(given.prompt), t = tonumber(given.completion)}) do
  if amount > 0 then book(payer, prefix .. ':' .. given.model, {[day] = amount}, day * 86400) end
end
return 1

-- script shown
-- Totals that only grow, though the beginning of what runs on may move to a later time. New prices begin them anew.
-- `prices` is their digest, `totals` are name, total, ... Answers the totals to show, in that order.
-- keys: shown
-- args: prices, totals...
if redis.call('HGET', shown, 'prices') ~= given.prices then
  redis.call('DEL', shown)
  redis.call('HSET', shown, 'prices', given.prices)
end
local answer = {}
for i = 1, #given.totals, 2 do
  local name, total = given.totals[i], given.totals[i + 1]
  local before = redis.call('HGET', shown, name)
  if not before or tonumber(total) > tonumber(before) then
    redis.call('HSET', shown, name, total)
    before = total
  end
  answer[#answer + 1] = before
end
return answer

-- script sample
-- Add a sample of the service, unless another process has added one since the caller looked. `last` is the note as the
-- caller saw it ("" for none), `note` the new one; `of_hour` is "" for none.
-- Answers 1 if they were added.
-- keys: sampled, minutes, hours
-- args: last, note, of_minute, minutes_kept, of_hour, hours_kept
if (redis.call('GET', sampled) or '') ~= given.last then return 0 end
redis.call('SET', sampled, given.note)
redis.call('RPUSH', minutes, given.of_minute)
redis.call('LTRIM', minutes, -tonumber(given.minutes_kept), -1)
if given.of_hour ~= '' then
  redis.call('RPUSH', hours, given.of_hour)
  redis.call('LTRIM', hours, -tonumber(given.hours_kept), -1)
end
return 1
