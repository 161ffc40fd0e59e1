-- Notes the earliest deadline that waits, where deadlines have moved.
if deadlines_moved then
  local next_ms
  for _, deadlines in ipairs({ UD, ID }) do
    local at_ms = tonumber(call('ZRANGE', deadlines, 0, 0, 'WITHSCORES')[2])
    if at_ms and (not next_ms or at_ms < next_ms) then next_ms = at_ms end
  end
  h[NEXT] = next_ms and format(MOMENT, next_ms) or NO_TIME
end
