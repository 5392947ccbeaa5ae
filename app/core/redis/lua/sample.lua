-- Add a sample of the service, unless another process has added one since the caller looked.
-- KEYS: what was noted with the last sample, samples of minutes, samples of hours.
-- ARGV: the note as the caller saw it ("" for none), the new note, a sample, minutes kept, the sample of an hour or "", hours
--   kept. Answers 1 if they were added.
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
redis.call('RPUSH', KEYS[2], ARGV[3])
redis.call('LTRIM', KEYS[2], -tonumber(ARGV[4]), -1)
if ARGV[5] ~= '' then
  redis.call('RPUSH', KEYS[3], ARGV[5])
  redis.call('LTRIM', KEYS[3], -tonumber(ARGV[6]), -1)
end
return 1
