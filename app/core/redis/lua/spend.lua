-- Count the tokens of a request to a model, once. `once` marks it as counted while the call may be repeated.
-- KEYS: session's tokens, user's tokens of the day, once
-- ARGV: kept (s: session's, user's, once), tokens in all, then field, count, ...
-- Answers 0 when it was counted before.
if not redis.call('SET', KEYS[3], '1', 'NX', 'EX', ARGV[3]) then return 0 end
for i = 5, #ARGV, 2 do redis.call('HINCRBY', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('EXPIRE', KEYS[1], ARGV[1])
redis.call('INCRBY', KEYS[2], ARGV[4])
redis.call('EXPIRE', KEYS[2], ARGV[2])
return 1
