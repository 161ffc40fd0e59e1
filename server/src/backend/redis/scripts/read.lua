-- Reads entries as they are now.
--
-- ARGV: 3 number of keys of users, then these, then internal ones.
if must_settle then return { 'settle' } end
local users = tonumber(ARGV[3])

local function fetch(entries, first, last)
  if last < first then return {} end
  if last - first < 4000 then return call('HMGET', entries, unpack(ARGV, first, last)) end
  local all = {}
  for from = first, last, 4000 do
    local to = math.min(from + 3999, last)
    local records = call('HMGET', entries, unpack(ARGV, from, to))
    for i = 1, to - from + 1 do all[#all + 1] = records[i] end
  end
  return all
end

return { 'ok', now_text, state, fetch(UE, 4, 3 + users), fetch(IE, 4 + users, #ARGV) }
