-- Prompts whose effects a rollback undid. ARGV[1] has besides: ids (of prompts that have ended), most (how many are
-- remembered). KEYS[12] is the key of a prompt with any id. Answers how many were not marked before; one that has expired
-- is not made anew, but remembered too.
local undone = session .. ':undone'
local marked = 0
for _, id in ipairs(given.ids) do
  local name = string.gsub(prompt, '[^:]*$', '') .. id
  if redis.call('EXISTS', name) == 1 and redis.call('HEXISTS', name, 'rolled_back_at') == 0 then
    redis.call('HSET', name, 'rolled_back_at', given.now)
    marked = marked + 1
  end
  redis.call('LREM', undone, 0, id)
  redis.call('RPUSH', undone, id)
end
redis.call('LTRIM', undone, -given.most, -1)
return marked
