-- Tells the lineages that this one goes on from, one a line: name, last revision, the revision after what was lost.
if must_settle then return { 'settle' } end
return { 'ok', now_text, state, call('HGET', HEAD, 'ancestors') }
