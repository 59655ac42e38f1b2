-- Opens one more stream of a tenant on a server, unless all servers together have too many; or tells how many it has.
--
-- KEYS    1 the tenant's streams: by server, how many and until when that counts, as count:milliseconds since 1970
-- ARGV    1 the server, 2 how many it has open, this one included, 3 how many may be open in all; 0: any number,
--         4 milliseconds for which this counts
-- returns whether it may

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local mine, most = tonumber(ARGV[2]), tonumber(ARGV[3])
local open = mine
local known = redis.call('HGETALL', KEYS[1])
for i = 1, #known, 2 do
  local count, ends = string.match(known[i + 1], '^(%d+):(%d+)$')
  if not ends or tonumber(ends) <= now then
    redis.call('HDEL', KEYS[1], known[i])
  elseif known[i] ~= ARGV[1] then
    open = open + tonumber(count)
  end
end
if most > 0 and open > most then
  return 0
end
if mine == 0 then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f:%.0f', mine, now + ARGV[4]))
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
end
return 1
