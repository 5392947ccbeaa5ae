-- Whether nothing of this session is to be left.
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

-- Whether a new session can still be restored from this later: restore points go with their session, except those that were
-- in use before.
local function lasting(from)
  local uuid = string.match(from, '^point%-(%w+)%-')
  local status = uuid and redis.call('HGET', 'session:' .. uuid, 'status')
  return not uuid or (status and status ~= 'terminating' and status ~= 'terminated')
end
