-- Update the list of backups in use from the records of some sessions.
-- KEYS: the list. ARGV: the records' key without the uuid, then uuids.
for i = 2, #ARGV do
  local name, status = unpack(redis.call('HMGET', ARGV[1] .. ARGV[i], 'restore_from', 'status'))
  if name and name ~= '' and status ~= 'terminated' then
    redis.call('HSET', KEYS[1], ARGV[i], name)
  else
    redis.call('HDEL', KEYS[1], ARGV[i])
  end
end
return #ARGV - 1
