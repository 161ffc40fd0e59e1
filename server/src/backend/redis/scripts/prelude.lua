-- What every script of a namespace begins with: where it stands, in which process, and what time it is.
--
-- KEYS: the head; entries of users, their order, their deadlines; the same three of internal keys; the log; recent
-- commits. All are named although most scripts use a few: while a slot is being moved, Redis then refuses the script
-- rather than let it see half a namespace.
-- ARGV: 1 a time that was answered before.
--
-- This is one run of statements rather than functions: to make these, and what they share, costs Redis more than most commits.
local HEAD, UE, UO, UD, IE, IO, ID, LOG, RECENT = unpack(KEYS, 1, 9)
local ARGV, call, tonumber, unpack = ARGV, redis.call, tonumber, unpack
local match, find, byte, sub, format = string.match, string.find, string.byte, string.sub, string.format

-- What a head has, in its order; all have their widths.
local IDENTITY, LINEAGE, CREATED, POSITION, REVISION, TIME, BIRTH, COMPACTED, CLEARED = 1, 2, 3, 4, 5, 6, 7, 8, 9
local KEYCOUNT, BYTES, EVENTS, LOG_BYTES, OLDEST, NEXT, FORGOTTEN, HALF, HALF_KEYS = 10, 11, 12, 13, 14, 15, 16, 17, 18
local NO_LINEAGE, NO_TIME = '00000000-0000-0000-0000-000000000000', '--------------'
local ZERO = '0000000000000000'

-- Numbers are whole and below 2^53; tostring would round them. Where the machine has integers that large, their way is the
-- quicker one.
local WHOLE, MOMENT = '%016d', '%014d'
if format(WHOLE, 9007199254740991) ~= '9007199254740991' then WHOLE, MOMENT = '%016.0f', '%014.0f' end

-- A primary takes a new identity when it starts, and when it becomes one.
local info = call('INFO', 'replication')
if not find(info, 'role:master', 1, true) then
  error({ err = 'READONLY this is a replica' })
end
local _, before_identity = find(info, 'master_replid:', 1, true)
local identity = sub(info, before_identity + 1, before_identity + 40)
local stored = call('HMGET', HEAD, 'format', 'state', 'turn', 'queue')
local state = stored[2]
local clock = call('TIME')
local now = math.max(clock[1] * 1000 + math.floor(clock[2] / 1000), ARGV[1] + 0)
local h, must_settle = {}, false
if stored[1] then
  if stored[1] ~= '2' then
    error({ err = 'FORMAT ' .. stored[1] .. ' is not known' })
  end
  h = { sub(state, 1, 40), sub(state, 42, 77), sub(state, 79, 92), sub(state, 94, 109), sub(state, 111, 126),
    sub(state, 128, 141), sub(state, 143, 158), sub(state, 160, 175), sub(state, 177, 192), sub(state, 194, 209),
    sub(state, 211, 226), sub(state, 228, 243), sub(state, 245, 260), sub(state, 262, 275), sub(state, 277, 290),
    sub(state, 292, 307), sub(state, 309, 324), sub(state, 326, 341) }
  now = math.max(now, h[TIME] + 0)
  must_settle = h[IDENTITY] ~= identity
  -- What has ended since the last time that is kept: no later answer may show it again, whatever the clock.
  if h[NEXT] ~= NO_TIME and h[NEXT] + 0 <= now then
    local from, to = '(' .. h[TIME], format(MOMENT, now)
    must_settle = must_settle or call('ZCOUNT', UD, from, to) + call('ZCOUNT', ID, from, to) > 0
  end
end
local now_text = format(MOMENT, now)
