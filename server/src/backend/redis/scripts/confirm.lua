-- Writes what is there once more: replicas that have that have all that came before.
if h[1] then call('HSET', HEAD, 'state', state) end
return { 'done', now_text, state }
