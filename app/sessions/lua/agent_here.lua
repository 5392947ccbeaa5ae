-- Note where a session's agent is. ARGV[1] has besides: address, pod (its name), boot ("" where it is not known).
-- Answers 0 when it is an agent that is being stopped: the session is gone, or not yet asleep.
local status, generation, settled = unpack(redis.call('HMGET', session, 'status', 'generation', 'settled'))
if not status or status == 'terminating' or status == 'terminated' then return 0 end
if status == 'sleeping' and generation ~= settled then return 0 end
local boot = redis.call('HGET', agent, 'boot')
if boot and given.boot == '' then return 1 end
if boot ~= given.boot then
  -- Another process, maybe of another volume: what it was given it may not have. It drops what it knows.
  local list = redis.call('LRANGE', prompts, 0, -1)
  for i = #list, 1, -1 do
    local delivered = string.gsub(message, '[^:]*$', '') .. list[i]
    if redis.call('HGET', delivered, 'state') == 'delivered' then
      redis.call('HSET', delivered, 'state', 'queued')
      redis.call('LPUSH', inbox, list[i])
    end
  end
end
local leaving = redis.call('HGET', agent, 'leaving')
redis.call('DEL', agent)
redis.call('HSET', agent, 'address', given.address, 'name', given.pod, 'boot', given.boot, 'at', given.now)
-- It may be the very process that was told to leave, whose call comes late.
if leaving and (boot == '' or boot == given.boot) then redis.call('HSET', agent, 'leaving', leaving) end
count()
return 1
