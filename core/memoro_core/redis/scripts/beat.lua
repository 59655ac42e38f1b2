-- Says that a server serves.
--
-- KEYS    1 the servers
-- ARGV    1 its name, 2 seconds after which one that says nothing is gone
-- returns how many serve

local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
redis.call('ZADD', KEYS[1], string.format('%.6f', now), ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('(%.6f', now - ARGV[2]))
redis.call('EXPIRE', KEYS[1], math.ceil(ARGV[2]))
return redis.call('ZCARD', KEYS[1])
