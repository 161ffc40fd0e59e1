-- Removes everything but the name, the last revision and the position, if nothing was committed since a position.
--
-- ARGV: 3 channel, 4 server and namespace for messages, 5 position, 6 last moment or empty.
if not h[1] then return { 'done', now_text, state, '' } end
local in_time = ARGV[6] == '' or now <= ARGV[6] + 0
if ARGV[5] + 0 ~= h[POSITION] + 0 or not in_time then return { 'moved', now_text, state } end
if h[LINEAGE] == NO_LINEAGE then return { 'done', now_text, state, '' } end
local lineage = h[LINEAGE]
h[LINEAGE], h[CREATED], h[TIME], h[POSITION] = NO_LINEAGE, now_text, now_text, format(WHOLE, h[POSITION] + 1)
h[BIRTH], h[COMPACTED], h[CLEARED] = h[REVISION], h[REVISION], h[REVISION]
h[KEYCOUNT], h[BYTES], h[EVENTS], h[LOG_BYTES], h[OLDEST], h[NEXT] = ZERO, ZERO, ZERO, ZERO, NO_TIME, NO_TIME
h[FORGOTTEN], h[HALF], h[HALF_KEYS] = h[POSITION], h[POSITION], ZERO
call('UNLINK', UE, UO, UD, IE, IO, ID, LOG, RECENT)
call('HDEL', HEAD, 'ancestors', 'turn', 'queue')
save()
publish(ARGV[3], ARGV[4], '-')
return { 'done', now_text, state, lineage }
