-- Tells the time. KEYS: the names, whose server's clock it is.
local clock = redis.call('TIME')
return { 'ok', string.format('%.0f', clock[1] * 1000 + math.floor(clock[2] / 1000)) }
