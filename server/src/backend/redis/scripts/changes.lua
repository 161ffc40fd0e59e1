-- Reads the log from an entry on.
--
-- ARGV: 3 id of the entry, 4 how many events, 5 about how many bytes. Of the first entry some may come before what was asked for.
if must_settle then return { 'settle' } end
local from, room, bytes_room = ARGV[3], math.min(ARGV[4] + 0, 1000), ARGV[5] + 0
-- One more than fits tells where a revision ends. Few at a time: how large they are is known only once they are read.
local found, events, bytes, more = {}, 0, 0, room > 0
while more and events <= room and bytes <= bytes_room do
  local step = math.max(math.min(math.floor((room - events) / 8), 16), 1)
  local entries = call('XRANGE', LOG, from, '+', 'COUNT', step)
  for i = 1, #entries do
    local fields = entries[i][2]
    for j = 1, #fields, 4 do
      events, bytes = events + 1, bytes + #fields[j + 1] + #fields[j + 3]
    end
    found[#found + 1] = entries[i]
  end
  more = #entries == step
  if more then from = '(' .. entries[step][1] end
end
return { 'ok', now_text, state, call('HGET', HEAD, 'ancestors'), found, more and 1 or 0 }
