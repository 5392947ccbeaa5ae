-- Count the tokens of a request to a model, once, and book them in the cost ledger. `once` marks it as counted while the
-- call may be repeated.
-- KEYS: session's tokens, user's tokens of the day, once, session
-- ARGV: kept (s: session's, user's, once), tokens in all, uuid, user, day (since 1970-01-01), model, tokens it read, tokens
--   it wrote, then field, count, ...
-- Answers 0 when it was counted before.
if not redis.call('SET', KEYS[3], '1', 'NX', 'EX', ARGV[3]) then return 0 end
for i = 11, #ARGV, 2 do redis.call('HINCRBY', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('EXPIRE', KEYS[1], ARGV[1])
redis.call('INCRBY', KEYS[2], ARGV[4])
redis.call('EXPIRE', KEYS[2], ARGV[2])
local payer = payer_of(ARGV[5], KEYS[4], ARGV[6])
for prefix, amount in pairs({p = tonumber(ARGV[9]), t = tonumber(ARGV[10])}) do
  if amount > 0 then book(payer, prefix .. ':' .. ARGV[8], {[tonumber(ARGV[7])] = amount}, tonumber(ARGV[7]) * 86400) end
end
return 1
