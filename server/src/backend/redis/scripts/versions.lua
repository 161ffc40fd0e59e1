-- How older versions are found, for the scripts that read at a revision.

-- The hash that holds a key.
local function entries_of(key)
  if string.byte(key) == 0 and string.byte(key, 2) ~= 0 then return IE end
  return UE
end

-- The version before the one that `link` belongs to, false if it is not held, and what it is linked to.
local function before(link)
  if link == '-' then return false end
  local found = call('XRANGE', LOG, link, link)
  return found[1] and found[1][2][6] or false
end

-- The version that was the newest at a revision, beginning with a record, or before a link; `budget` is a table with the
-- number of steps that are left. Where these do not suffice it answers a table with the link to go on before.
local function version_at(record, link, at, budget)
  if link then record = before(link) end
  while record do
    local linked, revision = match(record, '^%a (%S+) (%d+)')
    if tonumber(revision) <= at then return record end
    if budget[1] == 0 then return { linked } end
    budget[1] = budget[1] - 1
    record = before(linked)
  end
  return false
end
