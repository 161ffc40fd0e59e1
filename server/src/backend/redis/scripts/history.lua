-- Reads the versions of a key before a revision, newest first, as far as a bounded number of steps leads back.
--
-- ARGV: 3 key, 4 the link before which to go on or empty, 5 revision or empty, 6 how many.
if must_settle then return { 'settle' } end
local limit, end_revision = tonumber(ARGV[6]), tonumber(ARGV[5])
local MOST_STEPS, MOST_BYTES = 500, 1048576
local record
if ARGV[4] == '' then record = call('HGET', entries_of(ARGV[3]), ARGV[3]) else record = before(ARGV[4]) end
local found, bytes, link = {}, 0, false
for _ = 1, MOST_STEPS do
  if not record or #found == limit or bytes >= MOST_BYTES then break end
  local linked = link_of(record)
  if not end_revision or sub(record, 3, 18) + 0 < end_revision then
    found[#found + 1] = record
    bytes = bytes + #record
  end
  link = linked
  record = before(linked)
end
return { 'ok', now_text, state, found, record and link or false }
