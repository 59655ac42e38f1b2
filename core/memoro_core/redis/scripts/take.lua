-- Takes entries of consumer groups: what other consumers left behind, then what nobody has read. One entry of each
-- stream in turn, until their jobs fill the room. A group that is missing is made, and reads from the first entry on.
--
-- KEYS    the streams, all of one slot
-- ARGV    1 group, 2 consumer, 3 room in jobs,
--         4 milliseconds after which an unacknowledged entry goes to another reader; 0 leaves those alone,
--         5 how often an entry is given to a reader before it is dropped,
--         6 ... entries that this consumer still works on, as stream/id
-- returns a list of {stream, id, {field, value, ...}}

local group, consumer, room, idle = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local most_deliveries = tonumber(ARGV[5])
local taken = {}

local function take(stream, entry)
  local jobs = 1
  for i = 1, #entry[2], 2 do
    if entry[2][i] == 'jobs' then
      jobs = math.max(1, tonumber(entry[2][i + 1]) or 1)
    end
  end
  room = room - jobs
  taken[#taken + 1] = {stream, entry[1], entry[2]}
end

local function take_over(stream, held, most)
  local pending = redis.pcall('XPENDING', stream, group, 'IDLE', idle, '-', '+', most)
  if pending.err then
    return
  end
  for _, entry in ipairs(pending) do
    if room <= 0 then
      return
    end
    local id = entry[1]
    if not held[stream .. '/' .. id] then
      local claimed = redis.call('XCLAIM', stream, group, consumer, idle, id)
      if claimed[1] and entry[4] < most_deliveries then
        take(stream, claimed[1])
      else
        redis.call('XACK', stream, group, id)
        redis.call('XDEL', stream, id)
      end
    end
  end
end

local function take_next(stream)
  local read = redis.pcall('XREADGROUP', 'GROUP', group, consumer, 'COUNT', 1, 'STREAMS', stream, '>')
  if not read then
    return false
  end
  if read.err then
    if not string.find(read.err, 'NOGROUP', 1, true) then
      error(read.err)
    end
    redis.call('XGROUP', 'CREATE', stream, group, '0', 'MKSTREAM')
    return true
  end
  take(stream, read[1][2][1])
  return true
end

if idle > 0 then
  local held, most = {}, 64
  for i = 6, #ARGV do
    held[ARGV[i]] = true
    most = most + 1
  end
  for _, stream in ipairs(KEYS) do
    take_over(stream, held, most)
  end
end

local more = true
while more and room > 0 do
  more = false
  for _, stream in ipairs(KEYS) do
    if room > 0 and take_next(stream) then
      more = true
    end
  end
end

return taken
