-- Count how long a prompt took until now, in a histogram (app/core/redis/counters.py). ARGV[1] has besides: bounds (s).
local function timed(times, name)
  local created = tonumber(redis.call('HGET', prompt, 'created_at') or '0')
  if created == 0 then return end
  local seconds = math.max(0, tonumber(given.now) - created)
  local bucket = 0
  while bucket < #given.bounds and seconds > given.bounds[bucket + 1] do bucket = bucket + 1 end
  redis.call('HINCRBY', times, name .. ':' .. bucket, 1)
  redis.call('HINCRBY', times, name .. ':ms', math.floor(seconds * 1000 + 0.5))
end
