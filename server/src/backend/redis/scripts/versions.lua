-- How older versions are found, for the scripts that read at a revision.

-- The hash that holds a key.
local function entries_of(key)
  if byte(key) == 0 and byte(key, 2) ~= 0 then return IE end
  return UE
end

-- What names the event of the log that has the version before a record beside it; `-`: none does.
local function link_of(record)
  local kind = byte(record)
  if kind == 85 then return '-' elseif kind == 86 then return sub(record, 41, 62) end
  return sub(record, 3, 24)
end

-- The version before the one that `link` belongs to, false if it is not held. What is forgotten may still stand beside
-- what is not.
local function before(link)
  if link == '-' or sub(link, 1, 16) <= h[COMPACTED] then return false end
  local found = call('XRANGE', LOG, link, '+', 'COUNT', 1)
  local fields = found[1] and found[1][2] or {}
  for i = 1, #fields, 4 do
    if sub(fields[i + 1], 3, 24) == link then return fields[i + 2] ~= '-' and fields[i + 3] end
  end
  return false
end

-- The version that was the newest at a revision, beginning with a record, or before a link; `budget` is a table with the
-- number of steps that are left. Where these do not suffice it answers a table with the link to go on before.
local function version_at(record, link, at, budget)
  if link then record = before(link) end
  while record do
    local linked = link_of(record)
    if sub(record, 3, 18) + 0 <= at then return record end
    -- What it took the place of without a trace may have been renewed by then.
    if byte(record) == 86 and sub(linked, 1, 16) + 0 <= at then return false end
    if budget[1] == 0 then return { linked } end
    budget[1] = budget[1] - 1
    record = before(linked)
  end
  return false
end
