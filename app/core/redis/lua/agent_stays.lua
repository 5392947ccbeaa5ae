-- A session's agent was resumed: its prompts may be delivered.
-- ARGV[1] has besides: generation (of the intent). Answers 0 when a newer intent exists.
if redis.call('HGET', session, 'generation') ~= given.generation then return 0 end
redis.call('HDEL', agent, 'leaving', 'failures', 'retry_at')
count()
return 1
