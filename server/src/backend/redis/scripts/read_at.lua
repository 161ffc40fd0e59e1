-- Reads what keys held at a revision, as far as a bounded number of steps leads back.
--
-- ARGV: 3 revision, then for each key the key, and the link before which to go on or empty.
if must_settle then return { 'settle' } end
local at, budget, found = tonumber(ARGV[3]), { 500 }, {}
for i = 4, #ARGV, 2 do
  local link = ARGV[i + 1] ~= '' and ARGV[i + 1]
  local record = not link and call('HGET', entries_of(ARGV[i]), ARGV[i])
  found[#found + 1] = version_at(record, link, at, budget)
end
return { 'ok', now_text, state, call('HGET', HEAD, 'ancestors'), found }
