-- The end of a replacement.
call('UNLINK', UE, UO, UD, IE, IO, ID, LOG, RECENT)
call('HDEL', HEAD, 'ancestors', 'turn', 'queue')
local usage = call('HMGET', KEYS[16], 'keys', 'bytes')
for i = 2, 7 do
  local staged = KEYS[8 + i]
  if call('EXISTS', staged) == 1 then
    call('RENAME', staged, KEYS[i])
    call('PERSIST', KEYS[i])
  end
end
call('UNLINK', KEYS[16])
local revision = math.max(h[REVISION] + 0, ARGV[6] + 0) + 1
h[LINEAGE], h[CREATED], h[TIME], h[POSITION] = ARGV[2], now_text, now_text, format(WHOLE, h[POSITION] + 1)
h[REVISION], h[BIRTH], h[CLEARED] = format(WHOLE, revision), format(WHOLE, revision - 1), ZERO
h[COMPACTED] = h[REVISION]
h[KEYCOUNT], h[BYTES], h[EVENTS], h[LOG_BYTES], h[OLDEST] = format(WHOLE, usage[1] or 0), format(WHOLE, usage[2] or 0), ZERO,
  ZERO, NO_TIME
h[FORGOTTEN], h[HALF], h[HALF_KEYS] = h[POSITION], h[POSITION], ZERO
local deadlines_moved = true
