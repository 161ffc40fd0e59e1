-- Notes the name of a namespace. KEYS: the names. ARGV: the name.
redis.call('ZADD', KEYS[1], 0, ARGV[1])
return { 'ok' }
