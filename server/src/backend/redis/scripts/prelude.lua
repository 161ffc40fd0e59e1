-- What the scripts of a namespace begin with: where it stands, in which process, and what time it is.
--
-- KEYS: the head; entries of users, their order, their deadlines; the same three of internal keys; the log; recent
-- commits. All are named although most scripts use a few: while a slot is being moved, Redis then refuses the script
-- rather than let it see half a namespace.
-- ARGV: 1 a time that was answered before.
local HEAD, UE, UO, UD, IE, IO, ID, LOG, RECENT = unpack(KEYS, 1, 9)
local ARGV, call, tonumber, unpack = ARGV, redis.call, tonumber, unpack
local match, find, byte, sub, format = string.match, string.find, string.byte, string.sub, string.format

local FORMAT, IDENTITY, LINEAGE, CREATED, POSITION, REVISION, TIME, BIRTH, COMPACTED, CLEARED = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
local KEYCOUNT, BYTES, EVENTS, LOG_BYTES, OLDEST, NEXT, FORGOTTEN, HALF, HALF_KEYS, TURN = 11, 12, 13, 14, 15, 16, 17, 18, 19, 20

-- Their names.
local FIELDS = { 'format', 'identity', 'lineage', 'created_ms', 'position', 'revision', 'time_ms', 'birth', 'compacted',
  'cleared', 'keys', 'bytes', 'events', 'log_bytes', 'oldest_ms', 'next_ms', 'forgotten', 'half', 'half_keys', 'turn' }

-- Numbers are whole and below 2^53; tostring would round them. Where the machine has integers that large, their way is the
-- quicker one.
local WHOLE = format('%d', 9007199254740991) == '9007199254740991' and '%d' or '%.0f'
local function text(number)
  return format(WHOLE, number)
end

-- Whether something has ended since the last time that is kept: no later answer may show it again, whatever the clock.
local function ended_since(h, now)
  local next_ms = tonumber(h[NEXT] or '')
  if not next_ms or next_ms > now then return false end
  local from, to = '(' .. h[TIME], text(now)
  return call('ZCOUNT', UD, from, to) + call('ZCOUNT', ID, from, to) > 0
end

-- Answers the head, the time, whether the namespace has to be settled before anything can be said of it, and the identity
-- of the process.
local function stand()
  local info = call('INFO', 'replication')
  if not find(info, 'role:master', 1, true) then
    error({ err = 'READONLY this is a replica' })
  end
  -- A primary takes a new one when it starts, and when it becomes one.
  local identity = match(info, 'master_replid:(%x+)')
  local h = call('HMGET', HEAD, unpack(FIELDS))
  local clock = call('TIME')
  local now = math.max(clock[1] * 1000 + math.floor(clock[2] / 1000), tonumber(ARGV[1]), tonumber(h[TIME] or 0))
  if not h[FORMAT] then return h, now, false, identity end
  if h[FORMAT] ~= '1' then
    error({ err = 'FORMAT ' .. h[FORMAT] .. ' is not known' })
  end
  return h, now, h[IDENTITY] ~= identity or ended_since(h, now), identity
end
