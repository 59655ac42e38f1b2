-- Puts entries that a consumer has read and not acknowledged at the end of their stream, for whoever reads next.
--
-- KEYS    1 the stream
-- ARGV    1 group, 2 ... ids

for i = 2, #ARGV do
  local id = ARGV[i]
  local entry = redis.call('XRANGE', KEYS[1], id, id)[1]
  if redis.call('XACK', KEYS[1], ARGV[1], id) == 1 and entry then
    redis.call('XADD', KEYS[1], '*', unpack(entry[2]))
    redis.call('XDEL', KEYS[1], id)
  end
end
return redis.status_reply('OK')
