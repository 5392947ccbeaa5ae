-- Look at a session, and take the link somebody comes with: it opens for the visit that takes it, and for no other.
-- KEYS: session, link. ARGV: the visit, by which it is known when its answer was lost and it asks again.
-- Answers what the link is to (uuid:door), "" where it is none or was taken, and the session's hash.
local link = redis.call('GET', KEYS[2]) or ''
local taken, meant = string.match(link, '^(%x+) (.*)$')
if not taken then
  meant = link
  if link ~= '' then redis.call('SET', KEYS[2], ARGV[1] .. ' ' .. link, 'KEEPTTL') end
elseif taken ~= ARGV[1] then
  meant = ''
end
return {meant, redis.call('HGETALL', KEYS[1])}
