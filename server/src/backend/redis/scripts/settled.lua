-- What the scripts that write begin with besides.
--
-- ARGV: 2 a name for a lineage that might begin.

-- How far revisions jump at least where some may have been lost.
local JUMP = 1048576

-- Where a namespace begins whose past is unknown: after all it can have been.
local function unknown_past(now)
  return text(now * 1024)
end

-- The head as it is stored.
local stored = {}

-- Writes what has changed of the head.
local function save(h)
  local changed, count = {}, 0
  for i = 1, TURN do
    if h[i] ~= stored[i] then
      changed[count + 1], changed[count + 2], count, stored[i] = FIELDS[i], h[i], count + 2, h[i]
    end
  end
  if count > 0 then call('HSET', HEAD, unpack(changed)) end
end

-- Goes on from what is left, in a process that may not have had all: nothing that was given and lost is given again.
local function go_on(h, identity, now)
  local revision = text(math.max(tonumber(h[REVISION]) + JUMP, now * 1024))
  if h[LINEAGE] ~= '' then
    local lines = { h[LINEAGE] .. ' ' .. h[REVISION] .. ' ' .. revision }
    for line in string.gmatch(call('HGET', HEAD, 'ancestors') or '', '[^\n]+') do
      lines[#lines + 1] = line
      if #lines == 64 then break end
    end
    call('HSET', HEAD, 'ancestors', table.concat(lines, '\n'))
    h[LINEAGE] = ARGV[2]
  else
    h[BIRTH], h[COMPACTED], h[CLEARED] = revision, revision, revision
  end
  h[REVISION] = revision
  h[POSITION] = text(math.max(tonumber(h[POSITION]) + JUMP, now * 1024))
  h[FORGOTTEN], h[HALF], h[HALF_KEYS], h[TURN] = h[POSITION], h[POSITION], '0', ''
  h[IDENTITY] = identity
  call('UNLINK', RECENT)
end

-- Where the namespace stands, once it is settled: the head, the time, and the identity of the process.
local function settled()
  local h, now, must_settle, identity = stand()
  for i = 1, TURN do stored[i] = h[i] end
  if must_settle then
    if h[IDENTITY] ~= identity then go_on(h, identity, now) end
    h[TIME] = text(now)
    save(h)
  end
  return h, now, identity
end

-- Begins a history if there is none.
local function begin(h, now, identity)
  if not h[FORMAT] then
    local base = unknown_past(now)
    h[FORMAT], h[POSITION], h[REVISION], h[KEYCOUNT], h[BYTES], h[EVENTS], h[LOG_BYTES] = '1', base, base, '0', '0', '0', '0'
    h[BIRTH], h[COMPACTED], h[CLEARED] = base, base, base
    h[OLDEST], h[NEXT], h[TURN], h[LINEAGE] = '', '', '', ''
    h[FORGOTTEN], h[HALF], h[HALF_KEYS] = base, base, '0'
  end
  if h[LINEAGE] == '' then
    h[IDENTITY], h[LINEAGE], h[CREATED] = identity, ARGV[2], text(now)
  end
end

-- Tells the other servers where the namespace stands. `who` is the server that wrote, and the name of the namespace.
local function publish(h, channel, who)
  call('PUBLISH', channel, who .. ' ' .. h[REVISION] .. ' ' .. (h[LINEAGE] ~= '' and h[LINEAGE] or '-') .. ' '
    .. (h[NEXT] ~= '' and h[NEXT] or '-'))
end
