-- Note what a workspace uses, unless its session is being deleted.
-- KEYS: session, resources. ARGV: field, sample, kept (s), MiB of the volume in use. Answers 0 when nothing was noted.
local status = redis.call('HGET', KEYS[1], 'status')
if not status or status == 'terminating' or status == 'terminated' then return 0 end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
redis.call('EXPIRE', KEYS[2], ARGV[3])
redis.call('HSET', KEYS[1] .. ':use', 'disk_used_mib', ARGV[4])
return 1
