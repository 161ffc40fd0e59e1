-- Forgets the oldest of the log, a bounded number of entries, and what is only kept for them.
--
-- ARGV: 3 how many; 4 the last revision to forget, or empty and 5 most events, 6 most bytes, 7 oldest time, 8 what is not
-- older is young, 9 a revision whose followers stay, 10 the size from which nothing is spared.
local h, now = settled()
if not h[FORMAT] then return { 'done', text(now), h, 0 } end
local limit = tonumber(ARGV[3])
local events, bytes = tonumber(h[EVENTS]), tonumber(h[LOG_BYTES])
local after = tonumber(ARGV[4])
if after and after > tonumber(h[REVISION]) then return { 'done', text(now), h, 0 } end
local most_events, most_bytes, since, young, pinned, ceiling = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]),
  tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])

local function holds(revision, time)
  if after then return revision > after end
  if events <= most_events and bytes <= most_bytes and time >= since then return true end
  return (time >= young or (pinned and revision > pinned)) and bytes <= ceiling
end

-- An entry that was removed is known only as long as its removal is in the log.
local function forget_tombstone(key, record)
  local is_internal = string.byte(key) == 0 and string.byte(key, 2) ~= 0
  local entries = is_internal and IE or UE
  if call('HGET', entries, key) == record then
    call('HDEL', entries, key)
    call('ZREM', is_internal and IO or UO, key)
  end
end

-- Entries are read whole: of large ones not many at once.
local each = events > 0 and math.max(bytes / events, 1) or 1
local count = math.max(math.min(limit, math.floor(1048576 / each), 500), 16)
local found = call('XRANGE', LOG, '-', '+', 'COUNT', count + 1)
local compacted, kept, more = tonumber(h[COMPACTED]), nil, 0
for i = 1, #found do
  local fields = found[i][2]
  local kind, revision, time, log_bytes = match(fields[4], '^(%a) %S+ (%d+) (%d+) %S+ %d+ %d+ (%d+)')
  kept = i
  if tonumber(revision) ~= compacted and holds(tonumber(revision), tonumber(time)) then break end
  if i > count then
    more = 1
    break
  end
  kept = nil
  compacted, events, bytes = tonumber(revision), events - 1, bytes - log_bytes
  if fields[5] == 'q' then bytes = bytes - match(fields[6], '^%a %S+ %d+ %d+ %S+ %d+ %d+ (%d+)') end
  if find('DELR', kind, 1, true) then forget_tombstone(fields[2], fields[4]) end
end
if compacted ~= tonumber(h[COMPACTED]) or events ~= tonumber(h[EVENTS]) then
  if kept then
    call('XTRIM', LOG, 'MINID', found[kept][1])
    h[OLDEST] = match(found[kept][2][4], '^%a %S+ %d+ (%d+)')
  else
    call('UNLINK', LOG)
    h[OLDEST] = ''
  end
  h[COMPACTED], h[EVENTS], h[LOG_BYTES] = text(compacted), text(events), text(bytes)
  save(h)
end
return { 'done', text(now), h, more }
