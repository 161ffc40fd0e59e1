-- Removes all keys of users at one revision, if nothing was committed since a position.
--
-- ARGV: 3 channel, 4 server and namespace for messages, 5 position, 6 last moment or empty, 7 the record of the clear but
-- for its first fields, 8 to 14 what is to be written; then the keys and groups of unlogged writes.
if not h[1] or h[LINEAGE] == NO_LINEAGE then return { 'nothing', now_text, state } end
local in_time = ARGV[6] == '' or now <= ARGV[6] + 0
-- What is due ends by itself, and is told so.
local is_due = call('ZCOUNT', UD, '-inf', now_text) > 0
if ARGV[5] + 0 ~= h[POSITION] + 0 or not in_time or is_due then return { 'moved', now_text, state, false } end

local before = h[REVISION]
call('UNLINK', UE, UO, UD, RECENT)
h[REVISION], h[TIME], h[KEYCOUNT], h[BYTES] = format(WHOLE, before + 1), now_text, ZERO, ZERO
h[CLEARED] = h[REVISION]
do
  local link = h[REVISION] .. '-00000'
  local record = 'C ' .. link .. ' ' .. now_text .. ' -------------- ' .. h[REVISION] .. ' ' .. now_text .. ARGV[7]
  call('XADD', LOG, link, '', record, '-', '')
  if h[EVENTS] == ZERO then h[OLDEST] = now_text end
end
h[EVENTS], h[LOG_BYTES] = format(WHOLE, h[EVENTS] + 1), format(WHOLE, h[LOG_BYTES] + 128)
local counts_at, keys_at = 8, 14
local place = 15 + ARGV[8] + ARGV[9] + ARGV[10] + ARGV[11]
