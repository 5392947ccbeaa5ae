-- Prompts whose effects a rollback undid. ARGV[1] has besides: ids (of prompts that have ended). KEYS[12] is the key of a
-- prompt with any id. Answers how many were not marked before; one that has expired is not made anew.
local marked = 0
for _, id in ipairs(given.ids) do
  local name = string.gsub(prompt, '[^:]*$', '') .. id
  if redis.call('EXISTS', name) == 1 and redis.call('HEXISTS', name, 'rolled_back_at') == 0 then
    redis.call('HSET', name, 'rolled_back_at', given.now)
    marked = marked + 1
  end
end
return marked
