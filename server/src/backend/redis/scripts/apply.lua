-- How writes are applied, for the scripts that do.
--
-- A record is a line of text, `KIND REVISION-INDEX TIME DEADLINE CREATE_REVISION CREATED VERSION CT REF`, and then content
-- type, reference and value, with the lengths of the first two in the line. All in the line have their widths, so that
-- nothing has to be sought. REVISION-INDEX names the entry of the log that has the version before this one beside it. What
-- was written over that without a trace, kind `V`, has its name after TIME, `U` has none.
--
-- Strings are what costs most: Redis' Lua hashes every byte of each one that it makes. A key is told by its number.
--
-- From before: `counts_at`, where the counts stand: of keys of users and internal ones, of those of both that are only
-- removed without a trace, of how many entries of users are left of the first and of how many bytes, and by how many bytes
-- the log grows; `keys_at`, before the first key, in that order; `place`, where the writes begin.

-- How many keys are remembered with the commits that wrote them, at least; at most twice as many.
local REMEMBERED = 32768
-- Where something stands in the line of a record.
local DEADLINE_AT, DEADLINE_END, REF_AT, REF_END, LINE, OVER = 41, 54, 109, 113, 114, 23
-- What an event counts for beside key and value.
local EVENT_BYTES = 128
-- How many events share an entry of the log: as its name that has the name of the last. The number is four times as many.
local MOST_LOGGED, MOST_LOGGED_BYTES = 32, 16384

local users, internals = ARGV[counts_at] + 0, ARGV[counts_at + 1] + 0
local gone_users, gone_internals = ARGV[counts_at + 2] + 0, ARGV[counts_at + 3] + 0
local live, bytes, log_bytes = ARGV[counts_at + 4] + 0, ARGV[counts_at + 5] + 0, ARGV[counts_at + 6] + 0
local written = users + internals

-- What the keys held, by their numbers; false: nothing.
local was = {}
if users > 0 and users <= 4000 then
  was = call('HMGET', UE, unpack(ARGV, keys_at + 1, keys_at + users))
else
  for first = 1, users, 4000 do
    local found = call('HMGET', UE, unpack(ARGV, keys_at + first, keys_at + math.min(first + 3999, users)))
    for i = 1, #found do was[first + i - 1] = found[i] end
  end
end
for first = users + 1, written, 4000 do
  local found = call('HMGET', IE, unpack(ARGV, keys_at + first, keys_at + math.min(first + 3999, written)))
  for i = 1, #found do was[first + i - 1] = found[i] end
end

-- What they hold from now on: each key and its record after it. Then the keys that are new, with the scores that place them
-- in order, and where deadlines are concerned those before, and those from now on or false.
local set, new_users, new_internals, was_due, is_due = {}, {}, {}, {}, {}
local has_dropped = false
-- What goes into the log next: for each event key, record, how the record before stands with it, and that record.
local log, logged, logged_bytes = {}, 0, 0
local revision, revision_text, index = h[REVISION] + 0, h[REVISION], 0
local now_part, compacted, stamps, events = ' ' .. now_text, h[COMPACTED], {}, 0
local first_part, unlogged_part = '-00001' .. now_part, '-00000' .. now_part
local KINDS = { [68] = 'D ', [69] = 'E ', [76] = 'L ', [82] = 'R ', [83] = 'S ', [84] = 'T ', [85] = 'U ' }
local user, internal = 0, users

-- Each write has a word, the number of its key if it had a write before, and the rest of its record. The word is the kind;
-- what begins with it: `+`, a group that takes a revision, `-`, one that takes none, `.`, nothing; a `*` where deadline
-- and creation have to be completed, and come before the rest; and which key it is of: the next of users (`u`), or one that
-- does not count (`o`), the next internal one (`i`), one before (`n`), or none (`.`). A number at its end is that of the
-- writes in a row that it is the word of.
local more, kind, begins, form, of = 0, nil, nil, nil, nil
while true do
  if more > 0 then
    more = more - 1
  else
    local word = ARGV[place]
    if not word then break end
    kind, begins, form, of = byte(word, 1, 4)
    if #word > 5 then more = sub(word, 6) - 1 end
    place = place + 1
  end
  if begins ~= 46 then
    if begins == 43 then
      revision = revision + 1
      revision_text = format(WHOLE, revision)
    end
    index = 0
    stamps[#stamps + 1] = revision_text
  end
  local n
  if of == 117 or of == 111 then
    user = user + 1
    n = user
  elseif of == 105 then
    internal = internal + 1
    n = internal
  elseif of == 110 then
    n = ARGV[place] + 0
    place = place + 1
  end
  if n then
    local key = ARGV[keys_at + n]
    local prev, is_first = set[2 * n], false
    if prev == nil then
      prev, is_first = was[n], true
      set[2 * n - 1] = key
      if not prev then
        local new = n <= users and new_users or new_internals
        new[#new + 1] = '0'
        new[#new + 1] = key
      end
    end
    local prev_kind, over = nil, 0
    if prev then
      prev_kind = byte(prev)
      if prev_kind == 86 then over = OVER end
      if is_first then
        local due = byte(prev, DEADLINE_AT + over)
        if due ~= 45 and due ~= 64 then was_due[n] = sub(prev, DEADLINE_AT + over, DEADLINE_END + over) end
        if of == 117 and prev_kind >= 83 then
          live, bytes = live - 1, bytes - #key - #prev + LINE
          if due == 64 then bytes = bytes + sub(prev, REF_AT, REF_END) end
        end
      end
    end

    if kind == 88 then
      set[2 * n], has_dropped = false, true
      if was_due[n] or is_due[n] then is_due[n] = false end
    else
      local deadline, record
      local begin, part = KINDS[kind], first_part
      if kind ~= 85 then
        index = index + 1
        if index > 1 then part = format('-%05d', index) .. now_part end
      else
        part = unlogged_part
        if prev and prev_kind ~= 85 then
          -- What this takes the place of, or what that took the place of, is in the log.
          begin, part = 'V ', part .. ' ' .. (over > 0 and sub(prev, 41, 62) or sub(prev, 3, 24))
        end
      end
      if form == 42 then
        deadline = ARGV[place]
        local created = ARGV[place + 1]
        if byte(deadline) == 43 then deadline = format(MOMENT, now + deadline) end
        if created == '' then created = revision_text .. now_part elseif byte(created) == 35 then
          created = (stamps[tonumber(sub(created, 2))] or revision_text) .. now_part
        end
        record = begin .. revision_text .. part .. ' ' .. deadline .. ' ' .. created .. ARGV[place + 2]
        if byte(deadline) == 45 or byte(deadline) == 64 then deadline = nil end
        place = place + 3
      else
        record = begin .. revision_text .. part .. ARGV[place]
        place = place + 1
      end
      if deadline or was_due[n] or is_due[n] then is_due[n] = deadline or false end
      set[2 * n] = record
      if kind ~= 85 then
        events = events + 1
        local how = 'p'
        if not prev then
          prev, how = '', '-'
        elseif prev_kind > 84 or (is_first and sub(prev, 3, 18) <= compacted) then
          -- It is not in the log by itself, and counts here.
          log_bytes = log_bytes + EVENT_BYTES + #key
          if prev_kind == 83 or prev_kind > 84 then
            log_bytes = log_bytes + #prev - LINE - over - sub(prev, REF_AT + over, REF_END + over)
          end
          how = 'q'
        end
        log[logged + 1], log[logged + 2], log[logged + 3], log[logged + 4] = key, record, how, prev
        logged, logged_bytes = logged + 4, logged_bytes + #record + #prev
        if logged >= MOST_LOGGED or logged_bytes >= MOST_LOGGED_BYTES then
          call('XADD', LOG, sub(record, 3, 24), unpack(log, 1, logged))
          logged, logged_bytes = 0, 0
        end
      end
    end
  end
end

if logged > 0 then call('XADD', LOG, sub(log[logged - 2], 3, 24), unpack(log, 1, logged)) end

if has_dropped then
  -- Those that are dropped leave no holes.
  local left, left_users, gone = {}, 0, {}
  for n = 1, written do
    local key, record = set[2 * n - 1], set[2 * n]
    if record then
      left[#left + 1] = key
      left[#left + 1] = record
      if n <= users then left_users = left_users + 1 end
    else
      gone[key] = true
      call('HDEL', n <= users and UE or IE, key)
      call('ZREM', n <= users and UO or IO, key)
    end
  end
  local function still(new)
    local kept = {}
    for i = 1, #new, 2 do
      if not gone[new[i + 1]] then kept[#kept + 1], kept[#kept + 2] = '0', new[i + 1] end
    end
    return kept
  end
  new_users, new_internals = still(new_users), still(new_internals)
  set, user, internal = left, left_users, #left / 2
end
for first = 1, user, 2000 do call('HSET', UE, unpack(set, 2 * first - 1, 2 * math.min(first + 1999, user))) end
for first = user + 1, internal, 2000 do call('HSET', IE, unpack(set, 2 * first - 1, 2 * math.min(first + 1999, internal))) end
for first = 1, #new_users, 4000 do call('ZADD', UO, unpack(new_users, first, math.min(first + 3999, #new_users))) end
for first = 1, #new_internals, 4000 do
  call('ZADD', IO, unpack(new_internals, first, math.min(first + 3999, #new_internals)))
end
local deadlines_moved = false
for n, at in pairs(is_due) do
  if at ~= (was_due[n] or false) then
    deadlines_moved = true
    local deadlines, key = n <= users and UD or ID, ARGV[keys_at + n]
    if at then call('ZADD', deadlines, at, key) else call('ZREM', deadlines, key) end
  end
end
local gone_at = keys_at + written
if gone_users + gone_internals > 0 then
  local function forget(entries, order, deadlines, from, to)
    for first = from, to, 4000 do
      local last = math.min(first + 3999, to)
      call('HDEL', entries, unpack(ARGV, first, last))
      call('ZREM', order, unpack(ARGV, first, last))
      if call('ZREM', deadlines, unpack(ARGV, first, last)) > 0 then deadlines_moved = true end
    end
  end
  forget(UE, UO, UD, gone_at + 1, gone_at + gone_users)
  forget(IE, IO, ID, gone_at + gone_users + 1, gone_at + gone_users + gone_internals)
end

-- Remembers what this commit, which takes the next position, has written.
local all = written + gone_users + gone_internals
h[POSITION] = format(WHOLE, h[POSITION] + 1)
for first = 1, all, 4000 do
  local last = math.min(first + 3999, all)
  -- Fields and values are both keys: there is no empty one.
  if (last - first) % 2 == 1 then
    call('XADD', RECENT, h[POSITION] .. '-*', unpack(ARGV, keys_at + first, keys_at + last))
  else
    call('XADD', RECENT, h[POSITION] .. '-*', '', unpack(ARGV, keys_at + first, keys_at + last))
  end
end
local since_half = h[HALF_KEYS] + all
if since_half > REMEMBERED then
  call('XTRIM', RECENT, 'MINID', format(WHOLE, h[HALF] + 1))
  h[FORGOTTEN], h[HALF], since_half = h[HALF], h[POSITION], 0
end
h[HALF_KEYS] = format(WHOLE, since_half)

if events > 0 then
  if h[EVENTS] == ZERO then h[OLDEST] = now_text end
  h[EVENTS], h[LOG_BYTES] = format(WHOLE, h[EVENTS] + events), format(WHOLE, h[LOG_BYTES] + log_bytes)
end
h[REVISION], h[TIME] = revision_text, now_text
if live ~= 0 then h[KEYCOUNT] = format(WHOLE, h[KEYCOUNT] + live) end
if bytes ~= 0 then h[BYTES] = format(WHOLE, h[BYTES] + bytes) end
