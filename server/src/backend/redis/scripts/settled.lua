-- What the scripts that write begin with besides: the namespace is settled.
--
-- ARGV: 2 a name for a lineage that might begin.

-- How far revisions jump at least where some may have been lost.
local JUMP = 1048576

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
    local revision = format(WHOLE, math.max(h[REVISION] + JUMP, now * 1024))
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
    h[POSITION] = format(WHOLE, math.max(h[POSITION] + JUMP, now * 1024))
    h[FORGOTTEN], h[HALF], h[HALF_KEYS] = h[POSITION], h[POSITION], ZERO
    h[IDENTITY] = identity
    call('HDEL', HEAD, 'turn', 'queue')
    stored[3], stored[4] = false, false
    call('UNLINK', RECENT)
  end
  h[TIME] = now_text
  save()
end
