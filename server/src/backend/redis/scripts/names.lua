-- Reads names in order. KEYS: the names. ARGV: 1 and 2 the ends of the range in the form of ZRANGE, 3 how many.
return { 'ok', redis.call('ZRANGE', KEYS[1], ARGV[1], ARGV[2], 'BYLEX', 'LIMIT', 0, ARGV[3]) }
