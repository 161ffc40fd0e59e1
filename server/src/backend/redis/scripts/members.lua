-- Notes that a server lives, and tells which do. KEYS: the servers. ARGV: 1 the server, 2 after how long without a sign one is
-- not counted any more.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
redis.call('ZADD', KEYS[1], string.format('%.0f', now), ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('(%.0f', now - 60000))
return { 'ok', redis.call('ZRANGE', KEYS[1], string.format('%.0f', now - ARGV[2]), '+inf', 'BYSCORE') }
