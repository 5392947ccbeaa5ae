-- A session's agent was called back: its prompts may be delivered.
-- ARGV[1] has besides: generation (of the intent that wants it). Answers 0 when a newer one stands.
if redis.call('HGET', session, 'generation') ~= given.generation then return 0 end
redis.call('HDEL', agent, 'leaving', 'failures', 'retry_at')
count()
return 1
