-- Decides one call of a tenant over all its buckets and its units of the day. Only if all have room is anything taken; what is
-- handed back or carried is written in any case. The same in Python, and why it holds, is limits/bucket.py.
--
-- A bucket's level says how much of it is used: 60,000,000 to a token, so that a rate per minute drains a whole number per
-- microsecond. What servers have leased can still be spent: the level does not drain below what was leased in this epoch, as long
-- as a lease, and in the one before.
--
-- KEYS    the buckets, group by group; then the units of the day, if they are limited
-- ARGV    1 microseconds of an epoch,
--         2 units of the day at most (0: not limited), 3 units that are known to be used, 4 units handed back,
--         5 seconds for which units are kept,
--         6 groups, and for each:
--           how many buckets, tokens to take, tokens to lease besides,
--           how many times tokens are handed back, and for each: tokens, and the time at which they were leased;
--           for each bucket: tokens per minute, tokens at most, and what was taken elsewhere while this Redis was away: the level to
--           add where the bucket is known, and where it is not
-- returns {microseconds since 1970, whether it passes, units used, whether these have room,
--          tokens leased by each group ..., for each bucket: its level, and microseconds until it has room ...}
-- The first group takes the units.

local TOKEN = 60000000
local lease, most_units = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local epoch_now = math.floor(now / lease)
local stored = redis.call('MGET', unpack(KEYS))

-- What was leased under a larger bucket is no debt in the end either.
local function let_go(bucket, level, held, next_held)
  if held > bucket.burst * TOKEN then
    return math.min(level, math.max(next_held, bucket.burst * TOKEN))
  end
  return level
end

local function drain(bucket)
  if bucket.at > now then
    -- The clock was put back.
    bucket.at, bucket.epoch = now, math.min(bucket.epoch, epoch_now)
  end
  while bucket.epoch < epoch_now and bucket.leased + bucket.leased_before > 0 do
    local turn = (bucket.epoch + 1) * lease
    local held = (bucket.leased + bucket.leased_before) * TOKEN
    bucket.level = math.max(bucket.level - (turn - bucket.at) * bucket.rate, held)
    bucket.whole = math.max(bucket.whole - (turn - bucket.at) * bucket.rate, held)
    bucket.at, bucket.epoch = turn, bucket.epoch + 1
    bucket.leased_before, bucket.leased = bucket.leased, 0
    bucket.level = let_go(bucket, bucket.level, held, bucket.leased_before * TOKEN)
  end
  local held = (bucket.leased + bucket.leased_before) * TOKEN
  bucket.level = math.max(bucket.level - (now - bucket.at) * bucket.rate, held)
  bucket.whole = math.max(bucket.whole - (now - bucket.at) * bucket.rate, held)
  bucket.at, bucket.epoch = now, epoch_now
end

local function add(bucket, level)
  bucket.level, bucket.whole = bucket.level + level, bucket.whole + level
  bucket.written = bucket.written or level ~= 0
end

local function open(position, rate, burst, carried, carried_if_lost)
  local bucket, packed = {key = KEYS[position]}, stored[position]
  if not packed then
    bucket.level, bucket.whole, bucket.at, bucket.rate, bucket.burst = 0, 0, now, rate, burst
    bucket.epoch, bucket.leased, bucket.leased_before = epoch_now, 0, 0
    carried = carried_if_lost
  else
    bucket.level, bucket.whole, bucket.at, bucket.rate, bucket.burst, bucket.epoch, bucket.leased, bucket.leased_before =
      cmsgpack.unpack(packed)
    drain(bucket)
  end
  if bucket.rate ~= rate or bucket.burst ~= burst then
    local held = (bucket.leased + bucket.leased_before) * TOKEN
    bucket.level = math.max(math.min(bucket.whole, burst * TOKEN), held)
    bucket.rate, bucket.burst, bucket.written = rate, burst, true
  end
  add(bucket, math.max(0, math.min(carried, 2 * burst * TOKEN - bucket.level)))
  return bucket
end

-- Only what still counts as leased comes back: the rest has drained away.
local function hand_back(bucket, tokens, leased_at)
  local epoch = math.floor(leased_at / lease)
  local counter = epoch == bucket.epoch and 'leased' or epoch == bucket.epoch - 1 and 'leased_before'
  if counter then
    tokens = math.min(tokens, bucket[counter])
    bucket[counter] = bucket[counter] - tokens
    add(bucket, -tokens * TOKEN)
  end
end

local function wait_of(bucket, need)
  local room = bucket.burst * TOKEN - need
  local level, at, epoch, held, next_held = bucket.level, now, epoch_now, bucket.leased + bucket.leased_before, bucket.leased
  while held * TOKEN > room do
    local turn = (epoch + 1) * lease
    level = math.max(level - (turn - at) * bucket.rate, held * TOKEN)
    level = let_go(bucket, level, held * TOKEN, next_held * TOKEN)
    at, epoch, held, next_held = turn, epoch + 1, next_held, 0
  end
  return at - now + math.max(0, math.ceil((level - room) / bucket.rate))
end

local groups, buckets, argument, position, passes = {}, {}, 7, 0, true
for number = 1, tonumber(ARGV[6]) do
  local first, backs = argument, tonumber(ARGV[argument + 3])
  local group = {take = tonumber(ARGV[first + 1]), extra = tonumber(ARGV[first + 2]), buckets = {}}
  argument = first + 4 + 2 * backs
  for _ = 1, tonumber(ARGV[first]) do
    position = position + 1
    local bucket = open(position, tonumber(ARGV[argument]), tonumber(ARGV[argument + 1]), tonumber(ARGV[argument + 2]),
      tonumber(ARGV[argument + 3]))
    for back = 0, backs - 1 do
      hand_back(bucket, tonumber(ARGV[first + 4 + 2 * back]), tonumber(ARGV[first + 5 + 2 * back]))
    end
    -- What is heavier than the whole takes the whole.
    bucket.need = math.min(group.take, bucket.burst) * TOKEN
    bucket.wait = 0
    if bucket.need > 0 and bucket.level + bucket.need > bucket.burst * TOKEN then
      bucket.wait = wait_of(bucket, bucket.need)
      passes = false
    end
    group.buckets[#group.buckets + 1], buckets[position] = bucket, bucket
    argument = argument + 4
  end
  groups[number] = group
end

local units, units_before, units_have_room = 0, 0, true
if most_units > 0 then
  units_before = tonumber(stored[#KEYS] or 0)
  units = math.max(units_before - tonumber(ARGV[4]), tonumber(ARGV[3]))
  units_have_room = groups[1].take == 0 or units + groups[1].take <= most_units
  passes = passes and units_have_room
end

local answer = {now, passes and 1 or 0, 0, units_have_room and 1 or 0}
for number, group in ipairs(groups) do
  local extra = 0
  if passes then
    extra = group.extra
    if number == 1 and most_units > 0 then
      units = units + group.take
      extra = math.max(0, math.min(extra, math.floor((most_units - units) / 2)))
    end
    for _, bucket in ipairs(group.buckets) do
      add(bucket, bucket.need)
      -- Half of what is left, for the others; and at most half of the bucket, so that the rest can drain.
      local room = math.floor(math.floor((bucket.burst * TOKEN - bucket.level) / TOKEN) / 2)
      extra = math.max(0, math.min(extra, room, math.floor(bucket.burst / 2) - bucket.leased - bucket.leased_before))
    end
    if extra > 0 then
      for _, bucket in ipairs(group.buckets) do
        add(bucket, extra * TOKEN)
        bucket.leased = bucket.leased + extra
      end
      if number == 1 and most_units > 0 then
        units = units + extra
      end
    end
  end
  answer[4 + number] = extra
end
answer[3] = units

for _, bucket in ipairs(buckets) do
  if bucket.written then
    -- Empty, and with all leases over, it need not be known.
    local kept = math.ceil((bucket.whole / bucket.rate + 2 * lease) / 1000)
    redis.call('SET', bucket.key, cmsgpack.pack(bucket.level, bucket.whole, bucket.at, bucket.rate, bucket.burst, bucket.epoch,
      bucket.leased, bucket.leased_before), 'PX', string.format('%.0f', kept))
  end
  answer[#answer + 1] = bucket.level
  answer[#answer + 1] = bucket.wait
end
if most_units > 0 and (units ~= units_before or not stored[#KEYS]) then
  redis.call('SET', KEYS[#KEYS], string.format('%.0f', units), 'EX', ARGV[5])
end
return answer
