-- since finds what has changed after a version.
--
-- KEYS: records, version, changed, deleted
-- ARGV: version seen, how many records at most, how many deleted keys are remembered
-- Returns the store's version; the version up to which this is all; 1 if deletions after the version
-- seen are forgotten, else 0; how many keys were deleted; their ids; and then the id, version and
-- record of each key that was written.
local newest = redis.call('GET', KEYS[2]) or '0'
local version = newest
local gone = redis.call('ZRANGE', KEYS[4], '(' .. ARGV[1], '+inf', 'BYSCORE')
local oldest = redis.call('ZRANGE', KEYS[4], 0, 0, 'WITHSCORES')
local forgotten = 0
if redis.call('ZCARD', KEYS[4]) >= tonumber(ARGV[3]) and tonumber(oldest[2]) > tonumber(ARGV[1]) then forgotten = 1 end
local changed = redis.call('ZRANGE', KEYS[3], '(' .. ARGV[1], '+inf', 'BYSCORE', 'LIMIT', 0, ARGV[2], 'WITHSCORES')
if #changed == 2 * tonumber(ARGV[2]) then version = changed[#changed] end
local answer = {newest, version, tostring(forgotten), tostring(#gone)}
for _, id in ipairs(gone) do answer[#answer + 1] = id end
for i = 1, #changed, 2 do
  local record = redis.call('HGET', KEYS[1], changed[i])
  if record then
    answer[#answer + 1] = changed[i]
    answer[#answer + 1] = changed[i + 1]
    answer[#answer + 1] = record
  end
end
return answer
