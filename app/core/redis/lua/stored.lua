-- The end of a backup's costs (see index.lua); needs ledger.lua.
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
