-- Note where a session's agent is. ARGV[1] has besides: address, pod (its name), boot.
-- Answers 0 when it is an agent that is being stopped: the session is gone, or not yet asleep.
local status, generation, settled = unpack(redis.call('HMGET', session, 'status', 'generation', 'settled'))
if not status or status == 'terminating' or status == 'terminated' then return 0 end
if status == 'sleeping' and generation ~= settled then return 0 end
redis.call('DEL', agent)
redis.call('HSET', agent, 'address', given.address, 'name', given.pod, 'boot', given.boot, 'at', given.now)
return 1
