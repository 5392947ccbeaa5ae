-- Request the erasure of what is left of a session that is terminated or has no record.
-- KEYS: session, erasures, backups in use. ARGV: uuid, when it is overdue.
-- Answers {"ok" or "living" or "in_use", the backup in use or ""}.
local status = redis.call('HGET', KEYS[1], 'status')
if status and status ~= 'terminated' then return {'living', ''} end
local used = used_by_another(KEYS[3], ARGV[1])
if used then return {'in_use', used} end
redis.call('ZADD', KEYS[2], 'NX', ARGV[2], ARGV[1])
return {'ok', ''}
