-- Removes everything but the name, the last revision and the position, if nothing was committed since a position.
--
-- ARGV: 3 channel, 4 server and namespace for messages, 5 position, 6 last moment or empty.
local h, now = settled()
if not h[FORMAT] then return { 'done', text(now), h } end
local in_time = ARGV[6] == '' or now <= tonumber(ARGV[6])
if ARGV[5] ~= h[POSITION] or not in_time then return { 'moved', text(now), h } end
if h[LINEAGE] == '' then return { 'done', text(now), h } end
local d = {}
for i = 1, TURN do d[i] = h[i] end
d[LINEAGE], d[CREATED], d[TIME], d[POSITION] = '', text(now), text(now), text(h[POSITION] + 1)
d[BIRTH], d[COMPACTED], d[CLEARED] = h[REVISION], h[REVISION], h[REVISION]
d[KEYCOUNT], d[BYTES], d[EVENTS], d[LOG_BYTES], d[OLDEST], d[NEXT] = '0', '0', '0', '0', '', ''
d[FORGOTTEN], d[HALF], d[HALF_KEYS], d[TURN] = d[POSITION], d[POSITION], '0', ''
call('UNLINK', UE, UO, UD, IE, IO, ID, LOG, RECENT)
call('HDEL', HEAD, 'ancestors')
save(d)
publish(d, ARGV[3], ARGV[4])
return { 'done', text(now), h }
