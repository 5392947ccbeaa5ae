-- What is to be done: attempts at intents, requests for backups and restore points, and the clocks of those who watch.

-- script begin
-- Begin an attempt at a session's intent, or at a requested backup, restore point or drill: take the lease and count
-- the attempt, in one step. `requests` are those of backups, restore points or drills; `generation` is "" for a
-- request, `ttl` in ms, `tries` the field that counts the attempts.
-- Answers {code, the hash afterwards}; code is "ok", "done" (nothing is left to do) or "held" (another attempt has the
-- lease, and sends what is left at its end).
-- needs: pending_use
-- keys: session, lease, requests
-- args: uuid, generation, token, ttl, tries
local newest, settled = unpack(redis.call('HMGET', session, 'generation', 'settled'))
local request = given.generation == ''
if not newest then return {'done', {}} end
merge_use(session)
if request then
  if not redis.call('ZSCORE', requests, given.uuid) then return {'done', {}} end
elseif newest ~= given.generation or tonumber(settled or '0') >= tonumber(given.generation) then
  return {'done', {}}
end

local holder = redis.call('GET', lease)
if holder and holder ~= given.token then return {'held', {}} end
-- A client whose answer was lost repeats the call with its token, and has begun only once.
if not holder then
  redis.call('SET', lease, given.token, 'PX', given.ttl)
  redis.call('HINCRBY', session, given.tries, 1)
  if not request then redis.call('HINCRBY', session, 'lease', 1) end
end
return {'ok', redis.call('HGETALL', session)}

-- script backup_requested
-- Note a request for a backup of the session's files as they are from now on. Answers its number, 0 without a session.
-- keys: session, requests
-- args: uuid, due, now
if redis.call('EXISTS', session) == 0 then return 0 end
local number = redis.call('HINCRBY', session, 'backup_asked', 1)
if not redis.call('ZSCORE', requests, given.uuid) then redis.call('HSET', session, 'backup_waits', given.now) end
redis.call('ZADD', requests, given.due, given.uuid)
return number

-- script backup_settled
-- An attempt at the requested backups has ended. `asked` is the number of requests when it began. Answers 0 when
-- another was requested since.
-- keys: session, requests
-- args: uuid, asked, now
redis.call('HDEL', session, 'backup_tries')
if (redis.call('HGET', session, 'backup_asked') or '0') ~= given.asked then
  redis.call('HSET', session, 'backup_waits', given.now)
  return 0
end
redis.call('HDEL', session, 'backup_waits')
redis.call('ZREM', requests, given.uuid)
return 1

-- script point_requested
-- Note a request for a restore point of the session's files as they are from now on; its next attempt is due at `due`.
-- Answers 0, and does nothing, if there is no such session, or the service asks again for what is requested. A caller,
-- of a point or of an undo, needs one that begins after the call.
-- keys: session, requests, waiting
-- args: uuid, due, trigger, now
if redis.call('EXISTS', session) == 0 then return 0 end
local of_caller = given.trigger == 'api' or given.trigger == 'rollback'
if not of_caller and redis.call('ZSCORE', requests, given.uuid) then return 0 end
redis.call('HINCRBY', session, 'point_asked', 1)
redis.call('HSET', session, 'point_trigger', given.trigger)
redis.call('ZADD', requests, given.due, given.uuid)
redis.call('ZADD', waiting, 'NX', given.now, given.uuid)
return 1

-- script point_settled
-- An attempt at the requested restore point has ended. `asked` is the number of requests when it began. Answers 0 when
-- another was requested since.
-- keys: session, requests, waiting
-- args: uuid, asked
redis.call('HDEL', session, 'point_tries')
if (redis.call('HGET', session, 'point_asked') or '0') ~= given.asked then return 0 end
redis.call('HDEL', session, 'point_trigger')
redis.call('ZREM', requests, given.uuid)
redis.call('ZREM', waiting, given.uuid)
return 1

-- script tick
-- Note that the service runs now. What the clock skipped since the last tick is a gap, which does not count. A gap ends
-- at `now` if the clock went back into it. Without an earlier tick no time before now counts. `clock` is a hash of
-- `tick` (s since the epoch) and `gaps` (JSON: [[from, to], ...], oldest first); `jump` (s) is the longest step that
-- counts, `most` how many gaps are kept.
-- Answers the gaps, and the length of a new one (s), "0" for none.
-- keys: clock
-- args: now, jump, most
local now, jump, most = tonumber(given.now), tonumber(given.jump), tonumber(given.most)
local last = tonumber(redis.call('HGET', clock, 'tick') or '') or 0
local gaps, skipped = {}, 0

for _, gap in ipairs(cjson.decode(redis.call('HGET', clock, 'gaps') or '[]')) do
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
redis.call('HSET', clock, 'tick', given.now, 'gaps', text)
return {text, string.format('%.3f', skipped)}

-- script observed
-- A heartbeat of the observer. After a pause longer than `silence` (s), or a start, the time it has watched without a
-- pause begins anew. Both keys change in one step: otherwise a reader could take the time before the pause for watched.
-- keys: seen, since
-- args: now, silence
local now, before = tonumber(given.now), tonumber(redis.call('GET', seen))
if not before or now < before or now - before > tonumber(given.silence) then redis.call('SET', since, given.now) end
redis.call('SET', seen, given.now)
return 1
