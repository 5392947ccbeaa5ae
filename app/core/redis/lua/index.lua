-- Put a backup into the index, unless one of that name is being deleted. From its creation on it costs (ledger.lua).
-- KEYS: the retired, the backup, its session, then the sets it belongs to.
-- ARGV: name, created_at, uuid, user, KiB, then field, value, ...
-- Answers 0 when it is being deleted.
if redis.call('ZSCORE', KEYS[1], ARGV[1]) then return 0 end
redis.call('HSET', KEYS[2], unpack(ARGV, 6))
for i = 4, #KEYS do redis.call('ZADD', KEYS[i], ARGV[2], ARGV[1]) end
if redis.call('HEXISTS', KEYS[2], 'metered') == 0 then
  local payer = payer_of(ARGV[3], KEYS[3], ARGV[4])
  payer.user = ARGV[4]
  -- By this the end finds the same totals.
  redis.call('HSET', KEYS[2], 'metered', ARGV[5] .. ' ' .. payer.key)
  meter(payer, 'b', tonumber(ARGV[5]), in_s(ARGV[2]), 1, 1)
end
return 1
