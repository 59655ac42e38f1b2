-- Publishes many messages at once, where a pipeline can't: in a cluster, whose nodes pass them on to each other.
--
-- KEYS    1 what decides which node runs this; nothing is read or written
-- ARGV    channel, message, channel, message, ...

for i = 1, #ARGV, 2 do
  redis.call('PUBLISH', ARGV[i], ARGV[i + 1])
end
return redis.status_reply('OK')
