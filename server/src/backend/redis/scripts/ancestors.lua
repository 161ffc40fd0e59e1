-- Tells the lineages that this one goes on from, one a line: name, last revision, the revision after what was lost.
local h, now, must_settle = stand()
if must_settle then return { 'settle' } end
return { 'ok', text(now), h, call('HGET', HEAD, 'ancestors') }
