-- Puts what was staged in the place of a namespace, if nothing was committed there since a position.
--
-- KEYS as for staging. ARGV: 3 channel, 4 server and namespace for messages, 5 position, 6 the last revision of what was staged.
local h, now, identity = settled()
if tonumber(ARGV[5]) ~= tonumber(h[POSITION] or 0) then return { 'moved', text(now), h, false } end
begin(h, now, identity)
local before_revision = h[REVISION]
call('UNLINK', UE, UO, UD, IE, IO, ID, LOG, RECENT)
call('HDEL', HEAD, 'ancestors')
local usage = call('HMGET', KEYS[16], 'keys', 'bytes')
for i = 2, 7 do
  local staged = KEYS[8 + i]
  if call('EXISTS', staged) == 1 then
    call('RENAME', staged, KEYS[i])
    call('PERSIST', KEYS[i])
  end
end
call('UNLINK', KEYS[16])
local revision = math.max(tonumber(h[REVISION]), tonumber(ARGV[6])) + 1
h[LINEAGE], h[CREATED], h[TIME], h[POSITION] = ARGV[2], text(now), text(now), text(h[POSITION] + 1)
h[REVISION], h[COMPACTED], h[BIRTH], h[CLEARED] = text(revision), text(revision), text(revision - 1), '0'
h[KEYCOUNT], h[BYTES], h[EVENTS], h[LOG_BYTES], h[OLDEST] = usage[1] or '0', usage[2] or '0', '0', '0', ''
h[FORGOTTEN], h[HALF], h[HALF_KEYS], h[TURN] = h[POSITION], h[POSITION], '0', ''
note_next(h)
save(h)
publish(h, ARGV[3], ARGV[4])
return { 'done', text(now), h, before_revision }
