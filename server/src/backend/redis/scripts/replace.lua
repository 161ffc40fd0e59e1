-- Puts what was staged in the place of a namespace, if nothing was committed there since a position.
--
-- KEYS as for staging. ARGV: 3 channel, 4 server and namespace for messages, 5 position, 6 the last revision of what was staged,
-- 7 how many entries were.
if ARGV[5] + 0 ~= tonumber(h[POSITION] or 0) then return { 'moved', now_text, state, false } end
-- A process that has lost writes may have lost some of these.
if (call('HGET', KEYS[16], 'entries') or 0) + 0 ~= ARGV[7] + 0 then return { 'lost', now_text, state } end
