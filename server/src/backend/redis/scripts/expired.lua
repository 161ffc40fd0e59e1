-- Tells what is due.
--
-- ARGV: 3 how many keys.
if must_settle then return { 'settle' } end
local limit = tonumber(ARGV[3])
local internal = call('ZRANGE', ID, '-inf', now_text, 'BYSCORE', 'LIMIT', 0, limit)
local users, due, bytes = {}, {}, 0
if #internal < limit then
  due = call('ZRANGE', UD, '-inf', now_text, 'BYSCORE', 'LIMIT', 0, limit - #internal)
end
-- What is removed is read, and goes into the log: of large values not many at once.
local MOST_BYTES = 8388608
for i = 1, #due do
  bytes = bytes + call('HSTRLEN', UE, due[i])
  if i > 1 and bytes > MOST_BYTES then break end
  users[i] = due[i]
end
return { 'ok', now_text, state, internal, users }
