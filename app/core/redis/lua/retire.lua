-- Take a backup out of the index, after which its files are deleted; unless a session needs it.
-- KEYS: backups, its session's backups, the backup, the retired, those in use, its session
-- ARGV: name, now, uuid, the name of its user's set (before and after the user id), keep: "living" protects the newest backup of
--   a living session, "any" of any session, "" none.
-- Answers "retired" (also when it was before), "gone", "in_use" or "newest".
local backups, own, backup, retired, in_use, session = unpack(KEYS)
local name, now, uuid, before, after, keep = unpack(ARGV)
if not redis.call('ZSCORE', backups, name) then
  return redis.call('ZSCORE', retired, name) and 'retired' or 'gone'
end
for _, used in ipairs(redis.call('HVALS', in_use)) do if used == name then return 'in_use' end end

-- A teardown deletes the session's files after this backup of them.
local status, last = unpack(redis.call('HMGET', session, 'status', 'backup'))
if status == 'terminating' and last == name then return 'in_use' end

-- The session keeps its newest backup and its newest complete one.
local living = status and status ~= 'terminated'
if keep == 'any' or (keep == 'living' and living) then
  local newest = redis.call('ZREVRANGE', own, 0, -1)
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
  local payer, since = stop_metering(backup, uuid, session)
  book_backup(payer, since, tonumber(size), now)
end
if user_id then redis.call('ZREM', before .. user_id .. after, name) end
redis.call('ZREM', backups, name)
redis.call('ZREM', own, name)
redis.call('DEL', backup)
redis.call('ZADD', retired, now, name)
return 'retired'
