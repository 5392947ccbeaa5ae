-- A session's agent was called back: its prompts may be delivered.
redis.call('HDEL', agent, 'leaving', 'failures', 'retry_at')
return 1
