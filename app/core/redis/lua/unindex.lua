-- Take a backup without files out of the index; what it cost was booked when these were deleted.
-- KEYS: the backup, its session, then the sets it belongs to. ARGV: name, uuid, the name of its user's set (before and
-- after the user id).
local user = redis.call('HGET', KEYS[1], 'user_id')
for i = 3, #KEYS do redis.call('ZREM', KEYS[i], ARGV[1]) end
if user then
  stop_metering(KEYS[1], ARGV[2], KEYS[2])
  redis.call('ZREM', ARGV[3] .. user .. ARGV[4], ARGV[1])
  redis.call('DEL', KEYS[1])
end
return 1
