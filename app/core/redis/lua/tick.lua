-- Note that the service runs now. What the clock skipped since the last tick is a gap, which does not count. A gap ends at
-- `now` if the clock went back into it. Without an earlier tick no time before now counts.
-- KEYS: the clock, a hash of `tick` (s since the epoch) and `gaps` (JSON: [[from, to], ...], oldest first).
-- ARGV: now, jump (s, the longest step that counts), most (gaps kept).
-- Answers the gaps, and the length of a new one (s), "0" for none.
local now, jump, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local last = tonumber(redis.call('HGET', KEYS[1], 'tick') or '') or 0
local gaps, skipped = {}, 0

for _, gap in ipairs(cjson.decode(redis.call('HGET', KEYS[1], 'gaps') or '[]')) do
  if gap[1] < now then table.insert(gaps, {gap[1], math.min(gap[2], now)}) end
end
if now - last > jump then
  skipped = now - last
  if #gaps > 0 and gaps[#gaps][2] >= last then
    gaps[#gaps][2] = now
  else
    table.insert(gaps, {last, now})
  end
end
while #gaps > most do
  local closest = 1
  for i = 2, #gaps - 1 do
    if gaps[i + 1][1] - gaps[i][2] < gaps[closest + 1][1] - gaps[closest][2] then closest = i end
  end
  gaps[closest][2] = table.remove(gaps, closest + 1)[2]
end

local text = #gaps > 0 and cjson.encode(gaps) or '[]'
redis.call('HSET', KEYS[1], 'tick', ARGV[1], 'gaps', text)
return {text, string.format('%.3f', skipped)}
