-- Begins a history if there is none.
if not h[1] then
  -- Where the past is unknown: after all it can have been.
  local base = format(WHOLE, now * 1024)
  h = { identity, NO_LINEAGE, now_text, base, base, now_text, base, base, base, ZERO, ZERO, ZERO, ZERO, NO_TIME, NO_TIME, base,
    base, ZERO }
end
if h[LINEAGE] == NO_LINEAGE then
  h[IDENTITY], h[LINEAGE], h[CREATED] = identity, ARGV[2], now_text
  -- Who has read that there is nothing relies on that, whatever its keys.
  h[FORGOTTEN] = format(WHOLE, h[POSITION] + 1)
  h[HALF], h[HALF_KEYS] = h[FORGOTTEN], ZERO
end
local before = h[REVISION]
