-- Throws away what was staged. KEYS and the rest as for staging.
call('UNLINK', unpack(KEYS, 10, 16))
return { 'ok' }
