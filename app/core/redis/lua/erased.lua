-- Remove what Redis has of a session whose stored files are erased. Its tombstone, and what the cost ledger has of it, keep
-- a pseudonym for the user, and no labels, which may name a person. The user's totals stay: they name no session, and
-- budgets count by them.
-- KEYS: session, erasures, events. ARGV: one JSON object: uuid, pseudonym, months (those that the ledger keeps),
--   keep (fields of the tombstone), unlink (keys), leave (sorted sets of uuids).
local session, erasures, events = unpack(KEYS)
local given = cjson.decode(ARGV[1])
local uuid, ledger = given.uuid, 'ledger:' .. given.uuid

local function rename(set, to)
  local score = redis.call('ZSCORE', set, uuid)
  if not score then return end
  local left = redis.call('PTTL', set)
  redis.call('ZREM', set, uuid)
  redis.call('ZADD', to, score, uuid)
  if left > 0 and left > redis.call('PTTL', to) then redis.call('PEXPIRE', to, left) end
end

local user = redis.call('HGET', session, 'user_id') or redis.call('HGET', ledger, 'user_id')
if user and user ~= given.pseudonym then
  for _, month in ipairs(given.months) do
    local tail = ':' .. month .. ':sessions'
    rename('costs:user:' .. user .. tail, 'costs:user:' .. given.pseudonym .. tail)
  end
  rename('user:' .. user .. ':terminated', 'user:' .. given.pseudonym .. ':terminated')
  redis.call('HDEL', 'user:' .. user .. ':prompt_bytes', uuid)
  for _, hash in ipairs({ledger, session}) do
    if redis.call('EXISTS', hash) == 1 then redis.call('HSET', hash, 'user_id', given.pseudonym) end
  end
end
-- A call that still runs keeps no answer about it (app/api/lua/keep.lua).
if redis.call('EXISTS', session) == 1 then redis.call('HSET', session, 'delete_erase', '1') end

if redis.call('EXISTS', ledger) == 1 then redis.call('HSET', ledger, 'labels', '{}') end

local kept = {}
for _, field in ipairs(given.keep) do kept[field] = true end
for _, field in ipairs(redis.call('HKEYS', session)) do
  if not kept[field] then redis.call('HDEL', session, field) end
end
redis.call('UNLINK', events, unpack(given.unlink))
for _, set in ipairs(given.leave) do redis.call('ZREM', set, uuid) end
redis.call('ZREM', erasures, uuid)
redis.call('PUBLISH', events, '')
return 1
