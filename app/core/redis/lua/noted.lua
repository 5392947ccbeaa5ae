-- A session's use, which the gateway notes in a hash beside the record, as it may not write records. These fields are newer
-- than the record's. Only the fields of `USE_FIELDS` count, and only texts of their form: app/core/redis/use_fields.py puts
-- that table, and `LONGEST_USE`, in front.
local FORMS = {}

function FORMS.number(text)
  return string.find(text, '^%d+%.?%d*$') ~= nil and tonumber(text) < 1e11
end

function FORMS.count(text)
  return string.find(text, '^%d+$') ~= nil and FORMS.number(text)
end

function FORMS.signal(text)
  local at, till = string.match(text, '^(%S+) (%S+) ?%C*$')
  if at then return FORMS.number(at) and FORMS.number(till) end
  return FORMS.number(text)
end

function FORMS.note(text)
  if string.sub(text, 1, 1) ~= '{' then return false end
  local read, note = pcall(cjson.decode, text)
  return text == '{}' or (read and type(note.since) == 'number' and note.since >= 0 and note.since < 1e11 and type(note.reason) == 'string')
end

local function well_formed(field, text)
  local form = USE_FIELDS[field]
  return form ~= nil and #text <= LONGEST_USE and FORMS[form](text)
end

local function noted(session)
  local flat, known = redis.call('HGETALL', session .. ':use'), {}
  for i = 1, #flat, 2 do if well_formed(flat[i], flat[i + 1]) then known[flat[i]] = flat[i + 1] end end
  return known
end

-- The record with its noted use, in the form of HGETALL.
local function whole(session)
  local flat = redis.call('HGETALL', session)
  if #flat == 0 then return flat end
  for field, text in pairs(noted(session)) do
    flat[#flat + 1] = field
    flat[#flat + 1] = text
  end
  return flat
end

-- Copy the noted use into the record, which leaves out fields at their default.
local function fold(session)
  for field, text in pairs(noted(session)) do
    if text == '0' or text == '{}' then redis.call('HDEL', session, field) else redis.call('HSET', session, field, text) end
  end
  redis.call('UNLINK', session .. ':use')
end
