-- Add an entry to the audit. KEYS: stream. ARGV: its limit in bytes, the reserve, then field, value, ...
local before = redis.call('XLEN', KEYS[1])
redis.call('XADD', KEYS[1], '*', unpack(ARGV, 3))
fit(KEYS[1], nil, tonumber(ARGV[1]), ARGV[2], before)
return 1
