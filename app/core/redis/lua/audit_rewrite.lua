-- Copy the next entries of a stream of the audit, with a pseudonym for a session's user. When all are copied the copy takes
-- the stream's place, with the same ids.
-- KEYS: stream, copy. ARGV: uuid, pseudonym, the last id copied ("" at the beginning), how many.
-- Answers the last id copied, "" at the end.
local stream, copy = unpack(KEYS)
local uuid, pseudonym, last, number = unpack(ARGV)
if last == '' then redis.call('UNLINK', copy) end
local entries = redis.call('XRANGE', stream, last == '' and '-' or '(' .. last, '+', 'COUNT', number)
for _, entry in ipairs(entries) do
  local fields, of_session, user = entry[2], false, nil
  for i = 1, #fields, 2 do
    if fields[i] == 'uuid' then of_session = fields[i + 1] == uuid end
    if fields[i] == 'user_id' and fields[i + 1] ~= '' then user = i + 1 end
  end
  if of_session and user then fields[user] = pseudonym end
  redis.call('XADD', copy, entry[1], unpack(fields))
end
if #entries == tonumber(number) then return entries[#entries][1] end
if redis.call('EXISTS', copy) == 1 then redis.call('RENAME', copy, stream) end
return ''
