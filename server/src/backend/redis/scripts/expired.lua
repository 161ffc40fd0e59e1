-- Tells what is due.
--
-- ARGV: 3 how many keys.
if must_settle then return { 'settle' } end
local limit = tonumber(ARGV[3])
local internal = call('ZRANGE', ID, '-inf', now_text, 'BYSCORE', 'LIMIT', 0, limit)
local users = {}
if #internal < limit then
  users = call('ZRANGE', UD, '-inf', now_text, 'BYSCORE', 'LIMIT', 0, limit - #internal)
end
return { 'ok', now_text, state, internal, users }
