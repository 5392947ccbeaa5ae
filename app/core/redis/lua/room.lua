-- Whether only the reserve is left, a share of `maxmemory` for work that frees memory.
local function full(reserve)
  local memory = redis.call('INFO', 'memory')
  local function read(name) return tonumber(string.match(memory, '\n' .. name .. ':(%d+)') or '0') end
  local limit = read('maxmemory')
  return limit > 0 and read('used_memory') - read('mem_not_counted_for_evict') > limit * (1 - reserve)
end
