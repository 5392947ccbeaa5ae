-- Figures that only grow, though what runs on may turn out to have begun later. New prices begin them anew.
-- KEYS: the shown figures. ARGV: the prices' digest, then name, figure, ... Answers the figures to show, in that order.
if redis.call('HGET', KEYS[1], 'prices') ~= ARGV[1] then
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'prices', ARGV[1])
end
local shown = {}
for i = 2, #ARGV, 2 do
  local before = redis.call('HGET', KEYS[1], ARGV[i])
  if not before or tonumber(ARGV[i + 1]) > tonumber(before) then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
    before = ARGV[i + 1]
  end
  shown[#shown + 1] = before
end
return shown
