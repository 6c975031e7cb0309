-- restore replaces all records, if the store has fallen behind the version that they are of. They
-- were gathered before under a key of their own, a hash: id -> version, a space, record.
-- The set of deleted keys then says that any key may be among them: a node that has seen less
-- compares all.
--
-- KEYS: records, version, changed, deleted, gathered
-- ARGV: version, the entry that stands for every key
-- Returns 1 if it has replaced them, else 0.
if tonumber(redis.call('GET', KEYS[2]) or 0) >= tonumber(ARGV[1]) then
  redis.call('DEL', KEYS[5])
  return 0
end
redis.call('DEL', KEYS[1], KEYS[3], KEYS[4])
local all = redis.call('HGETALL', KEYS[5])
for i = 1, #all, 2 do
  local version, record = string.match(all[i + 1], '^(%d+) (.*)$')
  redis.call('HSET', KEYS[1], all[i], record)
  redis.call('ZADD', KEYS[3], version, all[i])
end
redis.call('SET', KEYS[2], ARGV[1])
redis.call('ZADD', KEYS[4], ARGV[1], ARGV[2])
redis.call('DEL', KEYS[5])
return 1
