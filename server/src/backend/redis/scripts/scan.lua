-- Reads entries in the order of their keys, up to a number of keys and about a mebibyte.
--
-- ARGV: 3 `u` or `i`, 4 and 5 the ends of the range in the form of ZRANGE, 6 whether in reverse, 7 how many keys, 8 revision
-- or empty.
if must_settle then return { 'settle' } end
local entries, order = UE, UO
if ARGV[3] == 'i' then entries, order = IE, IO end
local limit, at, budget = tonumber(ARGV[7]), tonumber(ARGV[8]), { 500 }
local MOST_BYTES, MOST_TOGETHER = 1048576, 100

local keys
if ARGV[6] == '1' then
  keys = call('ZRANGE', order, ARGV[5], ARGV[4], 'BYLEX', 'REV', 'LIMIT', 0, limit + 1)
else
  keys = call('ZRANGE', order, ARGV[4], ARGV[5], 'BYLEX', 'LIMIT', 0, limit + 1)
end
local seen, records, bytes = {}, {}, 0
local last = math.min(#keys, limit)
-- No more is read together than seems to fit: what is read in vain is read again.
local step = 1
while #seen < last and bytes < MOST_BYTES do
  local first = #seen + 1
  local to = math.min(#seen + step, last)
  local found = call('HMGET', entries, unpack(keys, first, to))
  for i = first, to do
    local record = found[i - first + 1]
    bytes = bytes + #keys[i] + (record and #record or 0)
    if at then record = version_at(record, nil, at, budget) end
    seen[i], records[i] = keys[i], record
    if bytes >= MOST_BYTES then break end
  end
  local fitting = math.floor((MOST_BYTES - bytes) * #seen / bytes)
  step = math.max(math.min(2 * step, fitting, MOST_TOGETHER), 1)
end
local more = #seen < #keys and 1 or 0
return { 'ok', now_text, state, at and call('HGET', HEAD, 'ancestors') or false, seen, records, more }
