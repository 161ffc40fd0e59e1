-- Appends groups of writes, if what they rely on is as it was.
--
-- ARGV: 3 server, 4 channel, 5 server and namespace for messages, 6 position of the reads, 7 last moment or empty,
-- 8 exact revision or empty, 9 when the last attempt was refused or 0: then a turn is asked for, 10 a turn that was waited
-- for as long as it can have lasted or empty; 11 to 15 what is to be written; 16 number of keys, 17 and 18 the first and the
-- last of them that was read, 19 number of ranges; then the keys, the ranges (first, beyond, whether there is a beyond), and
-- the groups.
local h, now, identity = settled()
local position, at, refused_at = tonumber(h[POSITION] or 0), tonumber(ARGV[6]), tonumber(ARGV[9])
local key_count = tonumber(ARGV[16])
local first_read, last_read, ranges_at = 19 + ARGV[17], 19 + ARGV[18], 20 + key_count
local groups = ranges_at + 3 * ARGV[19]
-- How many keys are looked through, and how many are told of, before it is simpler to read again.
local LOOKED_AT, TOLD = 32768, 1000
-- How many commits a turn lasts, and how long at the most.
local TURN_COMMITS, TURN_MS = 3, 1000
-- How long it waits for the next attempt: twice as long as that took the last time, and a little.
local hold = refused_at > 0 and math.min(math.max(2 * (now - refused_at), 0) + 5, 500) or 0
-- The same after one that was successful, for there may be no other.
local HOLD_ON_MS = 20

-- Whether a key comes before another, byte by byte: `<` would go by the language of the machine.
local function is_before(key, other)
  local place, length = 1, math.min(#key, #other)
  while place <= length and byte(key, place) == byte(other, place) do place = place + 1 end
  if place > length then return #key < #other end
  return byte(key, place) < byte(other, place)
end

-- Whether a key was read: a function, made only where it is needed.
local function reads()
  local keys, ranges = {}, {}
  for i = first_read, last_read do keys[ARGV[i]] = true end
  for i = ranges_at, groups - 1, 3 do
    ranges[#ranges + 1] = { ARGV[i], ARGV[i + 2] == '1' and ARGV[i + 1] }
  end
  return function(key)
    if keys[key] then return true end
    for i = 1, #ranges do
      local range = ranges[i]
      if not is_before(key, range[1]) and (not range[2] or is_before(key, range[2])) then return true end
    end
    return false
  end
end

-- The keys read that were written after the reads; nil if that is not known, or too much.
local function changed_since()
  if at == position then return {} end
  if at > position or at < tonumber(h[FORGOTTEN]) then return nil end
  local is_read, seen, changed, looked_at = reads(), {}, {}, 0
  local from = text(at + 1) .. '-0'
  while true do
    local commits = call('XRANGE', RECENT, from, '+', 'COUNT', 100)
    for i = 1, #commits do
      local keys = commits[i][2]
      looked_at = looked_at + #keys
      for j = 1, #keys do
        local key = keys[j]
        if not seen[key] and key ~= '' then
          seen[key] = true
          if is_read(key) then changed[#changed + 1] = key end
        end
      end
    end
    if #changed > TOLD then return nil end
    if #commits < 100 then return changed end
    if looked_at > LOOKED_AT then return nil end
    from = '(' .. commits[#commits][1]
  end
end

-- The server whose turn it is, if it is somebody's: its name, since when, until when, for how many commits.
local function turn()
  local who, since, till, left = match(h[TURN] or '', '^(%S+) (%d+) (%d+) (%d+)$')
  if who and tonumber(till) > now then return who, tonumber(since), till, tonumber(left) end
end

-- By the clock of who waited it is over: this one stands still, or was set back.
if ARGV[10] ~= '' and h[TURN] == ARGV[10] then
  h[TURN] = ''
  call('HSET', HEAD, 'turn', '')
end
local who, since, till, left = turn()
if who and who ~= ARGV[3] then return { 'busy', text(now), h, till, h[TURN] } end

local changed = changed_since()
local in_time = ARGV[7] == '' or now <= tonumber(ARGV[7])
local is_exact = ARGV[8] == '' or tonumber(ARGV[8]) == tonumber(h[REVISION] or 0)
if not (changed and #changed == 0 and in_time and is_exact) then
  local moved = false
  if changed then
    moved = {}
    for i = 1, #changed do
      moved[#moved + 1] = changed[i]
      moved[#moved + 1] = call('HGET', entries_of(changed[i]), changed[i])
    end
  end
  if hold > 0 and h[FORMAT] and (not who or now - since < TURN_MS) then
    h[TURN] = table.concat({ ARGV[3], text(since or now), text(now + hold), tostring(left or TURN_COMMITS) }, ' ')
    call('HSET', HEAD, 'turn', h[TURN])
  end
  return { 'moved', text(now), h, moved }
end

if not ARGV[groups] then return { 'done', text(now), h, h[REVISION] or '0' } end
begin(h, now, identity)
local revision = h[REVISION]
local deadlines_moved = write(h, now, writes_at(11, 20, key_count, groups))
if who then
  local is_over = left <= 1 or now - since >= TURN_MS
  local next_turn = { who, text(since), text(now + math.min(hold, HOLD_ON_MS)), tostring(left - 1) }
  h[TURN] = is_over and '' or table.concat(next_turn, ' ')
end
save(h)
if deadlines_moved or h[REVISION] ~= revision then publish(h, ARGV[4], ARGV[5]) end
return { 'done', text(now), h, revision }
