-- Forgets the oldest of the log, a bounded number of entries, and what is only kept for them.
--
-- ARGV: 3 how many; 4 the last revision to forget, or empty and 5 most events, 6 most bytes, 7 oldest time, 8 what is not
-- older is young, 9 a revision whose followers stay, 10 the size from which nothing is spared.
if not h[1] then return { 'done', now_text, state, 0 } end
local limit = tonumber(ARGV[3])
local events, bytes = h[EVENTS] + 0, h[LOG_BYTES] + 0
local after = tonumber(ARGV[4])
if after and after > tonumber(h[REVISION]) then return { 'done', now_text, state, 0 } end
local most_events, most_bytes, since, young, pinned, ceiling = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]),
  tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])

local function holds(revision, time)
  if after then return revision > after end
  if events <= most_events and bytes <= most_bytes and time >= since then return true end
  return (time >= young or (pinned and revision > pinned)) and bytes <= ceiling
end

-- What a record counts for in the log: the key, the value if it was written, and what surrounds them.
local function log_bytes(key, record)
  local kind, over = byte(record), 0
  if kind == 86 then over = 23 elseif kind ~= 83 and kind ~= 85 then return 128 + #key end
  return 128 + #key + #record - 114 - over - sub(record, 109 + over, 113 + over)
end

-- An entry that was removed is known only as long as its removal is in the log.
local function forget_tombstone(key, record)
  local is_internal = byte(key) == 0 and byte(key, 2) ~= 0
  local entries = is_internal and IE or UE
  if call('HGET', entries, key) == record then
    call('HDEL', entries, key)
    call('ZREM', is_internal and IO or UO, key)
  end
end

-- Entries are read whole: of large ones not many at once.
local each = events > 0 and math.max(bytes / events, 1) or 1
local count = math.max(math.min(limit, math.floor(1048576 / each), 500), 16)
local entries = math.floor(count / 8) + 1
local already, compacted, kept, oldest, more = h[COMPACTED] + 0, h[COMPACTED] + 0, nil, NO_TIME, 0
local seen, from = 0, '-'
repeat
  local found = call('XRANGE', LOG, from, '+', 'COUNT', entries + 1)
  for i = 1, #found do
    seen = seen + 1
    local fields = found[i][2]
    for j = 1, #fields, 4 do
      local key, record = fields[j], fields[j + 1]
      local revision = sub(record, 3, 18) + 0
      if revision > already then
        local is_next = revision ~= compacted
        local ends = is_next and holds(revision, sub(record, 26, 39) + 0)
        if ends or (is_next and seen > entries) then
          kept, oldest, more = found[i][1], sub(record, 26, 39), ends and 0 or 1
          break
        end
        compacted, events, bytes = revision, events - 1, bytes - log_bytes(key, record)
        if fields[j + 2] == 'q' then bytes = bytes - log_bytes(key, fields[j + 3]) end
        if find('DELR', sub(record, 1, 1), 1, true) then forget_tombstone(key, record) end
      end
    end
    if kept then break end
  end
  -- A revision is forgotten whole, however many entries it takes: what is left of it would count as forgotten already.
  from = not kept and #found > entries and '(' .. found[#found][1]
until not from
if compacted ~= already or events ~= h[EVENTS] + 0 then
  if kept then call('XTRIM', LOG, 'MINID', kept) else call('UNLINK', LOG) end
  h[OLDEST], h[COMPACTED] = oldest, format(WHOLE, compacted)
  h[EVENTS], h[LOG_BYTES] = format(WHOLE, events), format(WHOLE, bytes)
  save()
end
return { 'done', now_text, state, more }
