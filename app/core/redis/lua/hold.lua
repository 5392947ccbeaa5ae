-- A session is about to be stopped: its agent gets no more prompts, and those waiting are held back and wake nothing.
-- ARGV[1] has besides: generation (of the intent to stop it). Answers 0 when a newer intent exists.
if redis.call('HGET', session, 'generation') ~= given.generation then return 0 end
leave()
for _, id in ipairs(redis.call('LRANGE', inbox, 0, -1)) do
  if id ~= given.marker then
    redis.call('LREM', inbox, 1, id)
    redis.call('RPUSH', held, id)
  end
end
redis.call('ZREM', pending, given.uuid)
count()
-- Callers that wait for one of these prompts read that it is held back.
redis.call('PUBLISH', events, '')
return 1
