-- Reads the log from an entry on.
--
-- ARGV: 3 id of the entry, 4 the last id or `+`, 5 how many entries, 6 about how many bytes.
local h, now, must_settle = stand()
if must_settle then return { 'settle' } end
local from, to, room, bytes_room = ARGV[3], ARGV[4], math.min(tonumber(ARGV[5]), 1000), tonumber(ARGV[6])
-- One more than fits tells where a revision ends. Few at a time: how large they are is known only once they are read.
local found, bytes, more = {}, 0, room > 0
while more and #found <= room and bytes <= bytes_room do
  local step = math.min(room + 1 - #found, 64)
  local entries = call('XRANGE', LOG, from, to, 'COUNT', step)
  for i = 1, #entries do
    local fields = entries[i][2]
    bytes = bytes + #fields[4] + (fields[6] and #fields[6] or 0)
    found[#found + 1] = entries[i]
  end
  more = #entries == step
  if more then from = '(' .. entries[step][1] end
end
return { 'ok', text(now), h, call('HGET', HEAD, 'ancestors'), found, more and 1 or 0 }
