-- Removes all keys of users at one revision, if nothing was committed since a position.
--
-- ARGV: 3 channel, 4 server and namespace for messages, 5 position, 6 last moment or empty, 7 the record of the clear but
-- for its first fields, 8 to 12 what is to be written, 13 number of keys; then these, and groups of unlogged writes.
local h, now = settled()
if not h[FORMAT] or h[LINEAGE] == '' then return { 'nothing', text(now), h } end
local in_time = ARGV[6] == '' or now <= tonumber(ARGV[6])
-- What is due ends by itself, and is told so.
local is_due = call('ZCOUNT', UD, '-inf', text(now)) > 0
if ARGV[5] ~= h[POSITION] or not in_time or is_due then return { 'moved', text(now), h, false } end

local before_revision = h[REVISION]
call('UNLINK', UE, UO, UD, RECENT)
h[REVISION], h[TIME], h[KEYCOUNT], h[BYTES] = text(h[REVISION] + 1), text(now), '0', '0'
h[CLEARED] = h[REVISION]
local stamp, link = h[REVISION] .. ' ' .. h[TIME], h[REVISION] .. '-0'
local record = 'C ' .. link .. ' ' .. stamp .. ' - ' .. stamp .. ' ' .. ARGV[7]
call('XADD', LOG, link, 'k', '', 'r', record)
if h[EVENTS] == '0' then h[OLDEST] = h[TIME] end
h[EVENTS], h[LOG_BYTES] = text(h[EVENTS] + 1), text(h[LOG_BYTES] + match(ARGV[7], '^%d+'))
local keys = tonumber(ARGV[13])
write(h, now, writes_at(8, 14, keys, 14 + keys))
note_next(h)
h[FORGOTTEN], h[HALF], h[HALF_KEYS] = h[POSITION], h[POSITION], '0'
save(h)
publish(h, ARGV[3], ARGV[4])
return { 'done', text(now), h, before_revision }
