-- Record a new session, unless its user has reached the quota or the call has already created one.
-- KEYS: session, events, sessions:all, status set, user set, intents, expiry, backups, backups in use,
--   what the call has created ("" for a call without a name)
-- ARGV: uuid, quota (-1 none), created_at, due of the intent, expires_at (0 none), event type, event data,
--   digest (of the request), kept (s: how long the call is remembered), reserve (see room.lua), then field, value, ...
-- Answers the session's uuid, "exists", "quota", "reused" for a call with another digest before, "gone" when the backup or
-- restore point to restore from does not exist, or "no_room" in Redis. A recovered record has no quota, and is stored without these checks.
if KEYS[10] ~= '' then
  local made, digest = unpack(redis.call('HMGET', KEYS[10], 'uuid', 'digest'))
  if made then return digest == ARGV[8] and made or 'reused' end
end
if redis.call('EXISTS', KEYS[1]) == 1 then return 'exists' end
local quota = tonumber(ARGV[2])
-- What lies in the archive costs next to nothing, and doesn't count.
local function counted()
  local all = redis.call('ZCARD', KEYS[5])
  return all < quota and all or all - #redis.call('ZINTER', 2, KEYS[5], 'sessions:archived')
end
if quota >= 0 and counted() >= quota then return 'quota' end
local from, archived = '', false
for i = 11, #ARGV, 2 do
  if ARGV[i] == 'restore_from' then from = ARGV[i + 1] end
  if ARGV[i] == 'archived_at' then archived = true end
end
if from ~= '' and quota >= 0 and not (restorable(from, KEYS[8]) and lasting(from)) then return 'gone' end
if quota >= 0 and full(tonumber(ARGV[10])) then return 'no_room' end
if from ~= '' then redis.call('HSET', KEYS[9], ARGV[1], from) end
redis.call('UNLINK', KEYS[1] .. ':use')
redis.call('HSET', KEYS[1], unpack(ARGV, 11))
if archived then redis.call('ZADD', 'sessions:archived', ARGV[3], ARGV[1]) end
for i = 3, 5 do redis.call('ZADD', KEYS[i], ARGV[3], ARGV[1]) end
if ARGV[4] ~= '0' then redis.call('ZADD', KEYS[6], ARGV[4], ARGV[1]) end
if ARGV[5] ~= '0' then redis.call('ZADD', KEYS[7], ARGV[5], ARGV[1]) end
redis.call('XADD', KEYS[2], '*', 'type', ARGV[6], 'data', ARGV[7])
redis.call('PUBLISH', KEYS[2], '')
feed(KEYS[2], ARGV[6], ARGV[7])
if KEYS[10] ~= '' then
  redis.call('HSET', KEYS[10], 'uuid', ARGV[1], 'digest', ARGV[8])
  redis.call('EXPIRE', KEYS[10], ARGV[9])
end
return ARGV[1]
