-- How writes are applied, for the scripts that do.
--
-- A record is a line of text, `KIND LINK REVISION TIME DEADLINE CREATE_REVISION CREATED LOG_BYTES SIZE VERSION CT REF`, and
-- then content type, reference and value, with the lengths of the first two in the line. LINK names the entry of the log
-- that has the version before this one beside it.
--
-- Strings are what costs most: Redis' Lua hashes every byte of each one that it makes.

-- How many keys are remembered with the commits that wrote them, at least; at most twice as many.
local REMEMBERED = 32768

-- What a record begins with, by the codes of the kinds.
local KINDS = { [68] = 'D ', [69] = 'E ', [76] = 'L ', [82] = 'R ', [83] = 'S ', [84] = 'T ', [85] = 'U ' }

-- Calls a command with any number of arguments, in bounded pieces. `size` is how many belong together.
local function in_pieces(size, list, run)
  local step = 1000 * size
  for first = 1, #list, step do
    run(unpack(list, first, math.min(first + step - 1, #list)))
  end
end

-- The hash that holds a key.
local function entries_of(key)
  if byte(key) == 0 and byte(key, 2) ~= 0 then return IE end
  return UE
end

-- What is to be written, as the arguments from one on tell: how many keys of users are written and how many internal
-- ones, how many of what is written last to each of the former lives and how many bytes that has, how many bytes the log
-- grows by. `keys` is the number of keys that stand at `keys_at`: those of users come first, internal ones last.
local function writes_at(place, keys_at, keys, first)
  local users, internals = ARGV[place] + 0, ARGV[place + 1] + 0
  return { users = users, internals = internals, live = ARGV[place + 2] + 0, bytes = ARGV[place + 3] + 0,
    log_bytes = ARGV[place + 4] + 0, first = first,
    -- With the number of a key that is where it stands.
    users_at = keys_at - 1, internals_at = keys_at - 1 + keys - internals - users }
end

-- What the keys hold that are written: records in the order of the keys, false for what is not there.
local function fetch(w)
  local users, count = w.users, w.users + w.internals
  local records = {}
  local function add(entries, at, from, to)
    for first = from, to, 4000 do
      local last = math.min(first + 3999, to)
      local found = call('HMGET', entries, unpack(ARGV, at + first, at + last))
      if #records == 0 then records = found else
        for i = 1, #found do records[first + i - 1] = found[i] end
      end
    end
  end
  add(UE, w.users_at, 1, users)
  add(IE, w.internals_at, users + 1, count)
  return records
end

-- Whether a revision is after another, both as text.
local function is_after(revision, other)
  if #revision == #other then return revision > other end
  return tonumber(revision) > tonumber(other)
end

-- Applies the groups. Each write has a word, the number of its key, and the rest of its record. The word is the kind, and what
-- begins with it: `+`, a group that takes a revision; `-`, one that takes none; `.`, nothing. With a `*` behind, deadline
-- and creation have to be completed, and come before the rest.
--
-- Answers by the numbers of the keys: what they held, what they hold, and the deadlines of both where they have one of
-- their own.
local function apply(h, now, w)
  local ARGV, users, users_at, internals_at = ARGV, w.users, w.users_at, w.internals_at
  local was, is, was_due, is_due = fetch(w), {}, {}, {}
  local revision, revision_text, now_text, index = h[REVISION] + 0, h[REVISION], text(now), 0
  local compacted, stamps, live, bytes, log_bytes, events = h[COMPACTED], {}, w.live, w.bytes, w.log_bytes, 0
  -- Of a record the first or the second, and then deadline and size.
  local ITS_LINK, ITS_REVISION = '^%a (%S+) %d+ %d+ (%S+) %d+ %d+ %d+ (%d+)', '^%a %S+ (%d+) %d+ (%S+) %d+ %d+ %d+ (%d+)'
  local ITS_LOG_BYTES = '^%a %S+ %d+ %d+ %S+ %d+ %d+ (%d+)'
  local place = w.first
  local word = ARGV[place]
  while word do
    local kind, begins, form = byte(word, 1, 3)
    local n = ARGV[place + 1] + 0
    local key = ARGV[n <= users and users_at + n or internals_at + n]
    if begins ~= 46 then
      if begins == 43 then
        revision = revision + 1
        revision_text = text(revision)
      end
      index = 0
      stamps[#stamps + 1] = revision_text
    end

    local prev, link_or_revision = is[n], '-'
    local is_first = prev == nil
    if is_first then prev = was[n] end
    if prev then
      local due, size
      link_or_revision, due, size = match(prev, kind == 85 and ITS_LINK or ITS_REVISION)
      if is_first then
        if due ~= '-' and due ~= '@' then was_due[n] = due end
        if n <= users and byte(key) ~= 0 then
          bytes = bytes - size
          local prev_kind = byte(prev)
          if prev_kind >= 83 and prev_kind <= 85 then live = live - 1 end
        end
      end
    end

    if kind == 88 then
      is[n], is_due[n] = false, nil
      place = place + 2
    else
      local link = link_or_revision
      if kind ~= 85 then
        index = index + 1
        link = revision_text .. (index == 1 and '-1' or '-' .. text(index))
      end
      local record
      if form then
        local deadline, created = ARGV[place + 2], ARGV[place + 3]
        if byte(deadline) == 43 then deadline = text(now + deadline) end
        if created == '' then created = revision_text .. ' ' .. now_text elseif byte(created) == 35 then
          created = (stamps[tonumber(sub(created, 2))] or revision_text) .. ' ' .. now_text
        end
        is_due[n] = deadline ~= '-' and deadline ~= '@' and deadline or nil
        record = KINDS[kind] .. link .. ' ' .. revision_text .. ' ' .. now_text .. ' ' .. deadline .. ' ' .. created
          .. ARGV[place + 4]
        place = place + 5
      else
        is_due[n] = nil
        record = KINDS[kind] .. link .. ' ' .. revision_text .. ' ' .. now_text .. ARGV[place + 2]
        place = place + 3
      end
      is[n] = record
      if kind ~= 85 then
        events = events + 1
        if not prev then
          call('XADD', LOG, link, 'k', key, 'r', record)
        elseif byte(prev) ~= 85 and is_after(link_or_revision, compacted) then
          call('XADD', LOG, link, 'k', key, 'r', record, 'p', prev)
        else
          -- It is not in the log by itself, and counts here.
          log_bytes = log_bytes + match(prev, ITS_LOG_BYTES)
          call('XADD', LOG, link, 'k', key, 'r', record, 'q', prev)
        end
      end
    end
    word = ARGV[place]
  end
  if events > 0 then
    if h[EVENTS] == '0' then h[OLDEST] = now_text end
    h[EVENTS], h[LOG_BYTES] = text(h[EVENTS] + events), text(h[LOG_BYTES] + log_bytes)
  end
  h[REVISION], h[TIME] = revision_text, now_text
  if live ~= 0 then h[KEYCOUNT] = text(h[KEYCOUNT] + live) end
  if bytes ~= 0 then h[BYTES] = text(h[BYTES] + bytes) end
  return was, is, was_due, is_due
end

-- Writes what the keys of a space hold after the commit, those with numbers from one to another; answers whether deadlines
-- have moved.
local function store(entries, order, deadlines, keys_at, from, to, was, is, was_due, is_due)
  local set, gone, new, due, free, count = {}, {}, {}, {}, {}, 0
  for n = from, to do
    local key, record = ARGV[keys_at + n], is[n]
    if record then
      set[count + 1], set[count + 2], count = key, record, count + 2
      if not was[n] then
        new[#new + 1] = '0'
        new[#new + 1] = key
      end
    elseif was[n] then
      gone[#gone + 1] = key
    end
    local is_at, was_at = is_due[n], was_due[n]
    if is_at ~= was_at then
      if is_at then
        due[#due + 1] = is_at
        due[#due + 1] = key
      else
        free[#free + 1] = key
      end
    end
  end
  in_pieces(2, set, function(...) call('HSET', entries, ...) end)
  in_pieces(2, new, function(...) call('ZADD', order, ...) end)
  in_pieces(1, gone, function(...) call('HDEL', entries, ...) call('ZREM', order, ...) end)
  in_pieces(2, due, function(...) call('ZADD', deadlines, ...) end)
  in_pieces(1, free, function(...) call('ZREM', deadlines, ...) end)
  return #due + #free > 0
end

-- Notes the earliest deadline that waits.
local function note_next(h)
  local next_ms = ''
  for _, deadlines in ipairs({ UD, ID }) do
    local at_ms = call('ZRANGE', deadlines, 0, 0, 'WITHSCORES')[2]
    if at_ms and (next_ms == '' or tonumber(at_ms) < tonumber(next_ms)) then next_ms = text(tonumber(at_ms)) end
  end
  h[NEXT] = next_ms
end

-- Remembers what this commit, which takes the next position, has written.
local function remember(h, w)
  h[POSITION] = text(h[POSITION] + 1)
  local id = h[POSITION] .. '-*'
  local function add(at, from, to)
    for first = from, to, 4000 do
      local last = math.min(first + 3999, to)
      -- Fields and values are both keys: there is no empty one.
      if (last - first) % 2 == 1 then
        call('XADD', RECENT, id, unpack(ARGV, at + first, at + last))
      else
        call('XADD', RECENT, id, '', unpack(ARGV, at + first, at + last))
      end
    end
  end
  local written = w.users + w.internals
  add(w.users_at, 1, w.users)
  add(w.internals_at, w.users + 1, written)
  local since_half = h[HALF_KEYS] + written
  if since_half > REMEMBERED then
    call('XTRIM', RECENT, 'MINID', text(h[HALF] + 1))
    h[FORGOTTEN], h[HALF], since_half = h[HALF], h[POSITION], 0
  end
  h[HALF_KEYS] = text(since_half)
end

-- Writes what the arguments tell.
local function write(h, now, w)
  local was, is, was_due, is_due = apply(h, now, w)
  local written = w.users + w.internals
  local users = store(UE, UO, UD, w.users_at, 1, w.users, was, is, was_due, is_due)
  local internals = store(IE, IO, ID, w.internals_at, w.users + 1, written, was, is, was_due, is_due)
  if users or internals then note_next(h) end
  remember(h, w)
  return users or internals
end
