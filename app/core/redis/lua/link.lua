-- Read a session and redeem a login link, which is valid for one lookup only.
-- KEYS: session, link. ARGV: the lookup's id, by which it is recognised when it is repeated after a lost answer.
-- Answers the link's target (uuid:access epoch), "" for an unknown or used link, and the session's hash.
local link = redis.call('GET', KEYS[2]) or ''
local taken, meant = string.match(link, '^(%x+) (.*)$')
if not taken then
  meant = link
  if link ~= '' then redis.call('SET', KEYS[2], ARGV[1] .. ' ' .. link, 'KEEPTTL') end
elseif taken ~= ARGV[1] then
  meant = ''
end
return {meant, whole(KEYS[1])}
