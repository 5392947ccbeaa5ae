-- Revoke all access to a session's workspace, revoke its token if a process may have it, and schedule the disconnect.
-- `change` is change.lua.
-- KEYS: those of change.lua, then lockouts, tries. ARGV: the change, uuid, when to check the disconnect, "sleeping".
-- Answers as change.lua.
local answer = change(KEYS, ARGV)
if answer[1] ~= 'ok' then return answer end
local status, generation, settled = unpack(redis.call('HMGET', KEYS[1], 'status', 'generation', 'settled'))
redis.call('DEL', KEYS[8])
if status == ARGV[4] and generation == settled then
  -- Nothing runs, and nothing starts before this script ends. The last token ended with the sleep, and the next one is
  -- not in use yet.
  redis.call('ZREM', KEYS[7], ARGV[2])
else
  redis.call('HINCRBY', KEYS[1], 'epoch', 1)
  redis.call('ZADD', KEYS[7], ARGV[3], ARGV[2])
end
return {answer[1], answer[2], redis.call('HGETALL', KEYS[1])}
