-- Tells what is due.
--
-- ARGV: 3 how many keys.
local h, now, must_settle = stand()
if must_settle then return { 'settle' } end
local limit = tonumber(ARGV[3])
local internal = call('ZRANGE', ID, '-inf', text(now), 'BYSCORE', 'LIMIT', 0, limit)
local users = {}
if #internal < limit then
  users = call('ZRANGE', UD, '-inf', text(now), 'BYSCORE', 'LIMIT', 0, limit - #internal)
end
return { 'ok', text(now), h, internal, users }
