-- Note a request for a restore point of the session's files as they are from now on.
-- KEYS: session, points:requested, points:waiting. ARGV: uuid, due (of the next attempt), trigger, now.
-- Answers 0, and does nothing, if there is no such session, or the service asks again for what is requested. A caller,
-- of a point or of an undo, needs one that begins after the call.
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local of_caller = ARGV[3] == 'api' or ARGV[3] == 'rollback'
if not of_caller and redis.call('ZSCORE', KEYS[2], ARGV[1]) then return 0 end
redis.call('HINCRBY', KEYS[1], 'point_asked', 1)
redis.call('HSET', KEYS[1], 'point_trigger', ARGV[3])
redis.call('ZADD', KEYS[2], ARGV[2], ARGV[1])
redis.call('ZADD', KEYS[3], 'NX', ARGV[4], ARGV[1])
return 1
