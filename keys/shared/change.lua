-- change writes a key, or deletes it if the record is empty. It does so only if the key is at the
-- revision that the writer knows, and the store has not fallen behind what the writer has seen.
--
-- KEYS: records, version, changed, deleted
-- ARGV: id, revision, record, version seen, how many deleted keys to remember
-- Returns the new version; -1 if somebody else has changed the key; -2 if the store has fallen behind.
if tonumber(redis.call('GET', KEYS[2]) or 0) < tonumber(ARGV[4]) then return -2 end
if tonumber(redis.call('ZSCORE', KEYS[3], ARGV[1]) or 0) ~= tonumber(ARGV[2]) then return -1 end
local version = redis.call('INCR', KEYS[2])
if ARGV[3] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
  redis.call('ZREM', KEYS[3], ARGV[1])
  redis.call('ZADD', KEYS[4], version, ARGV[1])
  redis.call('ZREMRANGEBYRANK', KEYS[4], 0, -1 - tonumber(ARGV[5]))
else
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
  redis.call('ZADD', KEYS[3], version, ARGV[1])
end
return version
