-- Adds entries to what is to take the place of a namespace.
--
-- KEYS from 10: entries of users, their order, their deadlines; the same three of internal keys; the usage.
-- ARGV from 3: for each entry the key, its deadline or empty, its size, and the record.
local ue, uo, ud, ie, io, id, usage = unpack(KEYS, 10, 16)
local keys, bytes = 0, 0
for i = 3, #ARGV, 4 do
  local key, deadline, size, record = unpack(ARGV, i, i + 3)
  local entries, order, deadlines = ue, uo, ud
  if byte(key) == 0 and byte(key, 2) ~= 0 then entries, order, deadlines = ie, io, id end
  local was = call('HGET', entries, key)
  call('HSET', entries, key, record)
  call('ZADD', order, 0, key)
  if deadline ~= '' then call('ZADD', deadlines, deadline, key) elseif was then call('ZREM', deadlines, key) end
  if byte(key) ~= 0 then
    bytes = bytes + size
    if was then bytes = bytes - #key - #was + 114 + sub(was, 109, 113) else keys = keys + 1 end
  end
end
call('HINCRBY', usage, 'entries', (#ARGV - 2) / 4)
call('HINCRBY', usage, 'keys', keys)
call('HINCRBY', usage, 'bytes', bytes)
-- What nobody puts in place does not stay.
for i = 10, 16 do call('EXPIRE', KEYS[i], 86400) end
return { 'ok' }
