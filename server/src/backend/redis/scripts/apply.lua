-- How writes are applied, for the scripts that do.
--
-- A record is a line of text, `KIND LINK REVISION TIME DEADLINE CREATE_REVISION CREATED LOG_BYTES SIZE VERSION CT REF`, and
-- then content type, reference and value, with the lengths of the first two in the line. LINK names the entry of the log
-- that has the version before this one beside it.

-- How many keys are remembered with the commits that wrote them, at least; at most twice as many.
local REMEMBERED = 32768

-- Calls a command with any number of arguments, in bounded pieces. `size` is how many belong together.
local function in_pieces(size, list, run)
  local step = 1000 * size
  for first = 1, #list, step do
    run(unpack(list, first, math.min(first + step - 1, #list)))
  end
end

-- The hash that holds a key.
local function entries_of(key)
  if string.byte(key) == 0 and string.byte(key, 2) ~= 0 then return IE end
  return UE
end

local function parse(record)
  local kind, link, revision, deadline, log_bytes, size =
    match(record, '^(%a) (%S+) (%d+) %d+ (%S+) %d+ %d+ (%d+) (%d+) ')
  return { record = record, kind = kind, link = link, revision = revision, at = tonumber(deadline),
    log_bytes = log_bytes, size = tonumber(size), lives = kind == 'S' or kind == 'T' or kind == 'U' }
end

-- What the keys that are written hold: a table of states by key, false for what is not there.
local function fetch(keys)
  local states = {}
  local by_hash = { [UE] = {}, [IE] = {} }
  for i = 1, #keys do
    local key = keys[i]
    if states[key] == nil then
      states[key] = false
      local list = by_hash[entries_of(key)]
      list[#list + 1] = key
    end
  end
  for hash, list in pairs(by_hash) do
    for first = 1, #list, 1000 do
      local last = math.min(first + 999, #list)
      local records = call('HMGET', hash, unpack(list, first, last))
      for i = first, last do
        local record = records[i - first + 1]
        if record then states[list[i]] = parse(record) end
      end
    end
  end
  return states, by_hash
end

-- Adds a record to the log, with the state before it if there was one.
local function log(h, link, key, record, log_bytes, prev)
  local bytes = h[LOG_BYTES] + log_bytes
  if not prev then
    call('XADD', LOG, link, 'k', key, 'r', record)
  elseif prev.kind ~= 'U' and tonumber(prev.revision) > tonumber(h[COMPACTED]) then
    call('XADD', LOG, link, 'k', key, 'r', record, 'p', prev.record)
  else
    -- It is not in the log by itself, and counts here.
    bytes = bytes + prev.log_bytes
    call('XADD', LOG, link, 'k', key, 'r', record, 'q', prev.record)
  end
  h[LOG_BYTES] = bytes
  if h[EVENTS] == 0 then h[OLDEST] = h[TIME] end
  h[EVENTS] = h[EVENTS] + 1
end

-- Applies the groups that begin at an argument; answers the keys written. Each group has the number of its writes, whether it
-- takes a revision, and for each write: key, kind, deadline, creation, log bytes, size, the rest of the record.
local function apply(h, now, first)
  local keys, place = {}, first
  while ARGV[place] do
    local count = tonumber(ARGV[place])
    place = place + 2
    for _ = 1, count do
      keys[#keys + 1] = ARGV[place]
      place = place + 7
    end
  end
  local states, by_hash = fetch(keys)
  local old = {}
  for key, state in pairs(states) do old[key] = state end

  local revision, now_text, stamps = tonumber(h[REVISION]), text(now), {}
  h[EVENTS], h[LOG_BYTES], h[TIME] = tonumber(h[EVENTS]), tonumber(h[LOG_BYTES]), now_text
  place = first
  while ARGV[place] do
    local count = tonumber(ARGV[place])
    if ARGV[place + 1] == '1' then revision = revision + 1 end
    place = place + 2
    local revision_text, index = text(revision), 0
    local stamp = revision_text .. ' ' .. now_text
    stamps[#stamps + 1] = stamp
    for _ = 1, count do
      local key, kind, deadline, created, log_bytes, size, rest = unpack(ARGV, place, place + 6)
      place = place + 7
      local prev = states[key]
      if kind == 'X' then
        states[key] = false
      else
        local link = prev and prev.link or '-'
        if kind ~= 'U' then
          index = index + 1
          link = revision_text .. '-' .. index
        end
        if find(deadline, '+', 1, true) then deadline = text(now + tonumber(deadline)) end
        if created == '' then created = stamp elseif find(created, '#', 1, true) then
          created = stamps[tonumber(string.sub(created, 2))] or stamp
        end
        local record = kind .. ' ' .. link .. ' ' .. stamp .. ' ' .. deadline .. ' ' .. created .. ' ' .. log_bytes
          .. ' ' .. size .. ' ' .. rest
        if kind ~= 'U' then log(h, link, key, record, log_bytes, prev) end
        states[key] = { record = record, kind = kind, link = link, revision = revision_text, at = tonumber(deadline),
          log_bytes = log_bytes, size = tonumber(size), lives = kind == 'S' or kind == 'T' or kind == 'U' }
      end
    end
  end
  h[REVISION], h[EVENTS], h[LOG_BYTES] = text(revision), text(h[EVENTS]), text(h[LOG_BYTES])
  return by_hash, old, states
end

-- Writes what a space holds after the commit; answers whether deadlines have moved.
local function store(h, entries, order, deadlines, keys, old, states)
  local set, gone, new, due, free = {}, {}, {}, {}, {}
  local count, bytes = 0, 0
  for i = 1, #keys do
    local key = keys[i]
    local was, is = old[key], states[key]
    if is then
      set[#set + 1] = key
      set[#set + 1] = is.record
      if not was then
        new[#new + 1] = '0'
        new[#new + 1] = key
      end
    elseif was then
      gone[#gone + 1] = key
    end
    local was_at, is_at = was and was.at, is and is.at
    if is_at and is_at ~= was_at then
      due[#due + 1] = text(is_at)
      due[#due + 1] = key
    elseif was_at and not is_at then
      free[#free + 1] = key
    end
    if string.byte(key) ~= 0 then
      count = count + (is and is.lives and 1 or 0) - (was and was.lives and 1 or 0)
      bytes = bytes + (is and is.size or 0) - (was and was.size or 0)
    end
  end
  in_pieces(2, set, function(...) call('HSET', entries, ...) end)
  in_pieces(2, new, function(...) call('ZADD', order, ...) end)
  in_pieces(1, gone, function(...) call('HDEL', entries, ...) call('ZREM', order, ...) end)
  in_pieces(2, due, function(...) call('ZADD', deadlines, ...) end)
  in_pieces(1, free, function(...) call('ZREM', deadlines, ...) end)
  if count ~= 0 then h[KEYCOUNT] = text(h[KEYCOUNT] + count) end
  if bytes ~= 0 then h[BYTES] = text(h[BYTES] + bytes) end
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
local function remember(h, by_hash)
  h[POSITION] = text(h[POSITION] + 1)
  local written = 0
  for _, keys in pairs(by_hash) do
    written = written + #keys
    -- Fields and values are both keys: there is no empty one.
    if #keys % 2 == 1 then keys[#keys + 1] = '' end
    in_pieces(2, keys, function(...) call('XADD', RECENT, h[POSITION] .. '-*', ...) end)
  end
  local since_half = h[HALF_KEYS] + written
  if since_half > REMEMBERED then
    call('XTRIM', RECENT, 'MINID', text(h[HALF] + 1))
    h[FORGOTTEN], h[HALF], since_half = h[HALF], h[POSITION], 0
  end
  h[HALF_KEYS] = text(since_half)
end

-- Writes the groups that begin at an argument.
local function write(h, now, first)
  local by_hash, old, states = apply(h, now, first)
  local users = store(h, UE, UO, UD, by_hash[UE], old, states)
  local internals = store(h, IE, IO, ID, by_hash[IE], old, states)
  if users or internals then note_next(h) end
  remember(h, by_hash)
  return users or internals
end
