-- The end of a commit: the turn goes on, to another if somebody waits.
local next_turn = '-'
if who then
  left = left - 1
  if left <= 0 or now - since >= TURN_MS then
    pass()
    next_turn = who and who ~= me and who or '-'
  else
    till = now + math.min(hold, HOLD_ON_MS)
  end
end
if keep_turn then keep_turn() end
save()
if deadlines_moved or h[REVISION] ~= before or next_turn ~= '-' then publish(ARGV[4], ARGV[5], next_turn) end
return { 'done', now_text, state, before }
