-- Register a session's agent. ARGV[1] has besides: address, pod (its name), boot ("" if unknown).
-- Answers 0 for an agent that is being stopped: its session is deleted, or falling asleep.
local status, generation, settled = unpack(redis.call('HMGET', session, 'status', 'generation', 'settled'))
if not status or status == 'terminating' or status == 'terminated' then return 0 end
if status == 'sleeping' and generation ~= settled then return 0 end
local boot = redis.call('HGET', agent, 'boot')
if boot and given.boot == '' then return 1 end
if boot ~= given.boot then
  -- Another process, maybe on another volume, may lack the delivered prompts. It drops those it knows.
  local list = redis.call('LRANGE', prompts, 0, -1)
  for i = #list, 1, -1 do
    local delivered = string.gsub(prompt, '[^:]*$', '') .. list[i]
    if redis.call('HGET', delivered, 'state') == 'delivered' then
      redis.call('HSET', delivered, 'state', 'queued')
      redis.call('LPUSH', inbox, list[i])
    end
  end
end
local leaving = redis.call('HGET', agent, 'leaving')
redis.call('DEL', agent)
redis.call('HSET', agent, 'address', given.address, 'name', given.pod, 'boot', given.boot, 'at', given.now)
-- This may be the process that was told to stop, and whose call comes late.
if leaving and (boot == '' or boot == given.boot) then redis.call('HSET', agent, 'leaving', leaving) end
count()
return 1
