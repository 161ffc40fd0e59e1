-- Appends groups of writes, if what they rely on is as it was.
--
-- ARGV: 3 server, 4 channel, 5 server and namespace for messages, 6 position of the reads, 7 last moment or empty,
-- 8 exact revision or empty, 9 how long after a refusal this server tries again, 10 a turn that was waited for as long as it
-- can have lasted or empty, 11 when the last attempt was refused, or 0: if not, a turn is asked for where this one is, 12 and 13
-- how many keys and bytes there may be before or empty, 14 to 20 what is to be written, 21 how many keys were only read, 22 number
-- of ranges; then the keys, these last, the ranges (first,
-- beyond, whether there is a beyond), and the groups. Their words have an `r` fifth where the key was read.
local position, at, me = tonumber(h[POSITION] or 0), ARGV[6] + 0, ARGV[3]
local counts_at, keys_at = 14, 22
local ranges_at = 23 + ARGV[14] + ARGV[15] + ARGV[16] + ARGV[17] + ARGV[21]
local place = ranges_at + 3 * ARGV[22]
-- How many commits a turn lasts, and how long at the most.
local TURN_COMMITS, TURN_MS = 3, 1000
-- How long it waits after a commit, for there may be no other.
local HOLD_ON_MS = 20
-- How long it waits for the next attempt otherwise: twice as long as that takes this server, and a little.
local COMES_MS = 50
local pace, asks = ARGV[9] + 0, ARGV[11] ~= '0'
if asks then pace = math.max(pace, now - ARGV[11]) end
local hold = math.min(2 * pace + COMES_MS, 500)
-- How much of a queue for turns is kept.
local MOST_WAITING = 4096

-- Whose turn it is, if it is somebody's: since when, until when, and for how many commits; and who waits for theirs.
local who, since, till, left
local turn, queue, pass, keep_turn = stored[3] or '', stored[4] or '', nil, nil
if turn ~= '' or asks then
  -- Who has waited longest is the next.
  pass = function()
    local its_hold, rest
    who, its_hold, rest = match(queue, '^([^ :]+):(%d+) ?(.*)$')
    if who then since, till, left, queue = now, now + its_hold, TURN_COMMITS, rest end
  end
  keep_turn = function()
    local kept = who and table.concat({ who, format(WHOLE, since), format(WHOLE, till), left }, ' ') or ''
    if kept ~= turn or queue ~= (stored[4] or '') then call('HSET', HEAD, 'turn', kept, 'queue', queue) end
    turn = kept
  end
  who, since, till, left = match(turn, '^(%S+) (%d+) (%d+) (%d+)$')
  if who then
    since, till, left = since + 0, till + 0, left + 0
    -- It may be over by the clock of who waited: this one stands still, or was set back.
    if till <= now or turn == ARGV[10] then pass() end
  end
  if who and who ~= me then
    if not find(' ' .. queue, ' ' .. me .. ':', 1, true) and #queue < MOST_WAITING then
      queue = queue .. (queue == '' and '' or ' ') .. me .. ':' .. hold
    end
    keep_turn()
    return { 'busy', now_text, state, format(WHOLE, till), turn }
  end
end

local changed = {}
if at ~= position then
  -- Which of the keys read were written after the reads; nil if that is not known, or too much.
  changed = (function()
    -- How many keys are looked through, how often one is compared with a range, and how many are told of, before it is simpler to
    -- read again.
    local LOOKED_AT, COMPARED, TOLD = 32768, 200000, 1000
    local ranges = (place - ranges_at) / 3
    if at > position or at < tonumber(h[FORGOTTEN]) then return nil end
    local read, seen, found, looked_at = {}, {}, {}, 0
    local user_at, internal_at = keys_at, keys_at + ARGV[14]
    for i = ranges_at - ARGV[21], ranges_at - 1 do read[ARGV[i]] = true end
    local i = place
    while ARGV[i] do
      local kind, _, form, of, is_read = byte(ARGV[i], 1, 5)
      local times = #ARGV[i] > 5 and sub(ARGV[i], 6) + 0 or 1
      i = i + 1
      for _ = 1, times do
        if of == 110 then i = i + 1 elseif of ~= 46 then
          if of == 105 then internal_at = internal_at + 1 else user_at = user_at + 1 end
          if is_read == 114 then read[ARGV[of == 105 and internal_at or user_at]] = true end
        end
        i = i + ((kind == 88 or of == 46) and 0 or form == 42 and 3 or 1)
      end
    end
    -- Byte by byte: `<` would go by the language of the machine.
    local function is_before(key, other)
      local p, length = 1, math.min(#key, #other)
      while p <= length and byte(key, p) == byte(other, p) do p = p + 1 end
      if p > length then return #key < #other end
      return byte(key, p) < byte(other, p)
    end
    local function was_read(key)
      if read[key] then return true end
      for r = ranges_at, place - 1, 3 do
        if not is_before(key, ARGV[r]) and (ARGV[r + 2] ~= '1' or is_before(key, ARGV[r + 1])) then return true end
      end
      return false
    end
    local from = format(WHOLE, at + 1) .. '-0'
    while true do
      local commits = call('XRANGE', RECENT, from, '+', 'COUNT', 100)
      for c = 1, #commits do
        local keys = commits[c][2]
        looked_at = looked_at + #keys
        if looked_at * ranges > COMPARED then return nil end
        for j = 1, #keys do
          local key = keys[j]
          if not seen[key] and key ~= '' then
            seen[key] = true
            if was_read(key) then found[#found + 1] = key end
          end
        end
      end
      if #found > TOLD then return nil end
      if #commits < 100 then return found end
      if looked_at > LOOKED_AT then return nil end
      from = '(' .. commits[#commits][1]
    end
  end)()
end
local in_time = ARGV[7] == '' or now <= ARGV[7] + 0
local is_exact = ARGV[8] == '' or ARGV[8] + 0 == tonumber(h[REVISION] or 0)
local fits = ARGV[12] == '' or (h[KEYCOUNT] or 0) + 0 <= ARGV[12] + 0 and (h[BYTES] or 0) + 0 <= ARGV[13] + 0
if not (changed and #changed == 0 and in_time and is_exact and fits) then
  local moved = false
  if changed then
    moved = {}
    for i = 1, #changed do
      local key = changed[i]
      moved[2 * i - 1] = key
      moved[2 * i] = call('HGET', byte(key) == 0 and byte(key, 2) ~= 0 and IE or UE, key)
    end
  end
  if keep_turn and h[1] then
    if not who and asks then who, since, till, left = me, now, now, TURN_COMMITS end
    if who and now - since < TURN_MS then till = now + hold end
    keep_turn()
  end
  return { 'moved', now_text, state, moved }
end

if not ARGV[place] then
  if keep_turn then keep_turn() end
  return { 'done', now_text, state, h[REVISION] or '0' }
end
