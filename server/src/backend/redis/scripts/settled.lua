-- What the scripts that write begin with besides: the namespace is settled.
--
-- ARGV: 2 a name for a lineage that might begin.

-- What a number that counts up goes on from where some may have been given and lost. Histories begin at `now * 1024` and count
-- less than 1,024 a millisecond, so whatever was given is below that now; and a history that begins after all has been lost does
-- so further on. Where it is not below, clocks have been set back, or were further on where it was given.
local JUMP = 1048576
local function beyond(last)
  return format(WHOLE, last + 0 < now * 1024 and now * 1024 or last + JUMP)
end

-- Writes the head where it has changed.
local function save()
  local changed = table.concat(h, ' ')
  if changed ~= state then
    state = changed
    call('HSET', HEAD, 'format', '2', 'state', state)
  end
end

-- Tells the other servers where the namespace stands, and whose turn it is. `who` is the server that wrote, and the name of
-- the namespace.
local function publish(channel, who, turn)
  call('PUBLISH', channel, table.concat({ who, h[REVISION], h[LINEAGE], h[NEXT], turn }, ' '))
end

if must_settle then
  if h[IDENTITY] ~= identity then
    -- It goes on from what is left, in a process that may not have had all: nothing that was given and lost is given again.
    local revision = beyond(h[REVISION])
    if h[LINEAGE] ~= NO_LINEAGE then
      local lines = { h[LINEAGE] .. ' ' .. h[REVISION] .. ' ' .. revision }
      for line in string.gmatch(call('HGET', HEAD, 'ancestors') or '', '[^\n]+') do
        lines[#lines + 1] = line
        if #lines == 64 then break end
      end
      call('HSET', HEAD, 'ancestors', table.concat(lines, '\n'))
      h[LINEAGE] = ARGV[2]
    else
      h[BIRTH], h[COMPACTED], h[CLEARED] = revision, revision, revision
    end
    h[REVISION] = revision
    h[POSITION] = beyond(h[POSITION])
    h[FORGOTTEN], h[HALF], h[HALF_KEYS] = h[POSITION], h[POSITION], ZERO
    h[IDENTITY] = identity
    call('HDEL', HEAD, 'turn', 'queue')
    stored[3], stored[4] = false, false
    call('UNLINK', RECENT)
  end
  h[TIME] = now_text
  save()
end
