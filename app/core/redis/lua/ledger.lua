-- The cost ledger: what each session used, by day (UTC), and running totals of the service, of users and of API keys.
-- Amounts are whole numbers, by kind:
--   c:{size}        ms that processes of this size ran
--   d:{size}:{MiB}  s that a volume of so many MiB existed, of a session of this size
--   b               KiB * s of backups
--   r               KiB * s of what restore points keep in the store
--   p:{model}, t:{model}   tokens that a model read and wrote
-- What runs on is metered: of all that began in a month, OPEN has the sum of the rates (`n:`), and that of rate times the
-- time from the month's beginning (`s:`). So the running total of any owner is read without reading its sessions.
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
  local found = redis.call('HMGET', session, 'user_id', 'made_by', 'size', 'labels', 'created_at')
  if not found[1] then found = redis.call('HMGET', 'ledger:' .. uuid, 'user_id', 'made_by', 'size', 'labels', 'created_at') end
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

-- Begin and end the interval of a session's restore points: each change of their size ends it, and begins the next.
local function keep_points(session, payer, given, now)
  local since, kib = unpack(redis.call('HMGET', session, 'points_since', 'points_kib'))
  local from, size = given.points_from, given.points_kib
  if since and not given.points_until and (not from or size == kib or tonumber(from) < tonumber(since)) then return end
  if since then
    meter(payer, 'r', tonumber(kib), in_s(since), 1, -1)
    book(payer, 'r', by_day(tonumber(kib), in_s(since), in_s(given.points_until or from), 1), now)
    redis.call('HDEL', session, 'points_since', 'points_kib')
  end
  -- A maker that lost its lease may come after the end.
  if from and redis.call('HGET', session, 'status') ~= 'terminated' then
    redis.call('HSET', session, 'points_since', from, 'points_kib', size)
    meter(payer, 'r', tonumber(size), in_s(from), 1, 1)
    describe(payer)
  end
end

-- Begin and end the intervals of a session's processes, of its volume and of its restore points. `given` may have (s since the epoch, as texts):
--   ran_until: the processes have ended; an interval that began later is a newer one, and goes on
--   never_ran: they had not begun
--   runs_from: they run since then; moves the beginning of an open interval, and is ignored before the last end
--   kept_until: the volume is gone
--   kept_from, mib: it exists since then
--   points_until: the restore points are gone
--   points_from, points_kib: the restore points keep so much since then; ignored before the last such figure
-- An interval is booked and closed in one step, so it is booked once, whoever is killed and whatever is repeated.
local function keep_ledger(session, uuid, given, now)
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
  if since and given.ran_until and tonumber(since) <= tonumber(given.ran_until) then
    book(payer, kind, by_day(1, in_ms(since), in_ms(given.ran_until), 1000), now)
    end_run()
    last = given.ran_until
    redis.call('HSET', session, 'compute_until', last)
  elseif since and given.never_ran then
    end_run()
  end
  if given.runs_from and tonumber(given.runs_from) >= tonumber(last or '0') and given.runs_from ~= since then
    if since then end_run() end
    redis.call('HSET', session, 'compute_since', given.runs_from)
    redis.call('ZADD', 'costs:running', given.runs_from, uuid)
    meter(payer, kind, 1, in_ms(given.runs_from), 1000, 1)
    describe(payer)
  end
  if kept and given.kept_until then
    kind = 'd:' .. payer.size .. ':' .. mib
    meter(payer, kind, 1, in_s(kept), 1, -1)
    book(payer, kind, by_day(1, in_s(kept), in_s(given.kept_until), 1), now)
    redis.call('HDEL', session, 'disk_since', 'disk_mib')
  elseif not kept and given.kept_from then
    redis.call('HSET', session, 'disk_since', given.kept_from, 'disk_mib', given.mib)
    meter(payer, 'd:' .. payer.size .. ':' .. given.mib, 1, in_s(given.kept_from), 1, 1)
    describe(payer)
  end
  keep_points(session, payer, given, now)
end
