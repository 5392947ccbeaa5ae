-- Search a stream of the audit, from the newest entry to the oldest.
-- KEYS: stream, counts (if it has any). ARGV: first id (or +), entries to read, entries to find, uuid, by ("" for any).
-- Answers the entries found, each {id, {field, value, ...}, repetitions}, the last id read, and 1 when it is the oldest.
local stream, counts = unpack(KEYS)
local found, last = {}, ''
local wanted = {uuid = ARGV[4] ~= '' and ARGV[4] or nil, by = ARGV[5] ~= '' and ARGV[5] or nil}

local function fits(fields)
  for i = 1, #fields, 2 do
    local value = wanted[fields[i]]
    if value and value ~= fields[i + 1] then return false end
  end
  return true
end

local entries = redis.call('XREVRANGE', stream, ARGV[1], '-', 'COUNT', ARGV[2])
for _, entry in ipairs(entries) do
  last = entry[1]
  if fits(entry[2]) then
    found[#found + 1] = {last, entry[2], counts and redis.call('HGET', counts, last) or '0'}
    if #found == tonumber(ARGV[3]) then break end
  end
end
return {found, last, #entries < tonumber(ARGV[2]) and 1 or 0}
