-- Puts what was staged in the place of a namespace, if nothing was committed there since a position.
--
-- KEYS as for staging. ARGV: 3 channel, 4 server and namespace for messages, 5 position, 6 the last revision of what was staged.
if ARGV[5] + 0 ~= tonumber(h[POSITION] or 0) then return { 'moved', now_text, state, false } end
