package keys

import "github.com/redis/rueidis"

// Where things are in Redis. All times there are Redis's own, in milliseconds.
const (
	redisRecords = "sluice:keys"    // hash: id → record
	redisVersion = "sluice:version" // how many changes there have been
	redisChanged = "sluice:changed" // sorted set: id → version of its newest change
	redisDeleted = "sluice:deleted" // the same of those that were deleted, the newest keptDeleted
	redisNodes   = "sluice:nodes"   // sorted set: node → when it was heard of
	redisEra     = "sluice:era"     // hash: id, opens (when leases begin to be given), server (the run_id of Redis), left (when a node last went)
	redisLineage = "sluice:lineage" // an id of this history of changes
	redisWindows = "sluice:window:" // and the kind, and the key's id: hash, see leaseScript

	// everything stands among the deleted for all that is not there.
	everything = "*"
	// keptDeleted is how many deleted keys are remembered, for nodes that come back.
	keptDeleted = 10_000
)

// changeScript writes (or with an empty record deletes) a key, if it is at the revision that the
// writer knows and the store has not fallen behind what the writer has seen. It returns the new
// version, -1 if somebody else has changed the key, or -2.
//
// KEYS: records, version, changed, deleted. ARGV: id, revision, record, version seen, how many deleted to keep.
var changeScript = rueidis.NewLuaScript(`
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
return version`)

// sinceScript returns what has changed after a version: the store's version, the version up to which this is all, whether
// deletions before it are forgotten, how many were deleted, their ids, and then id, version and record
// of each that was written.
//
// KEYS: records, version, changed, deleted. ARGV: version seen, how many records at most, how many deleted are kept.
var sinceScript = rueidis.NewLuaScript(`
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
return answer`)

// restoreScript puts records in the place of all, if the store has fallen behind the version at which
// they were. They were gathered under a key of their own before: id → version, a space, record.
//
// Among the deleted stands then that everything may be: who has seen less compares all.
//
// KEYS: records, version, changed, deleted, gathered. ARGV: version, everything.
var restoreScript = rueidis.NewLuaScript(`
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
return 1`)

// beatScript says that a node lives. It returns the era, in how long leases are given in it, how many nodes there are, the
// lineage of the keys' changes and their version, and how long ago a node last went, -1 if none has.
//
// An era ends when somebody may have spent what is not counted here: Redis was emptied, is another process than before (which
// may have lost something), or the node has heard nothing for longer than cutOff. In a new one every node says what it has spent
// of late, and leases are given when all have had the time to: each puts that off by what it needs.
//
// KEYS: nodes, era, version, lineage. ARGV: node, the era it knows, whether it was cut off, an id for a new era, the time it needs to say what it
// has spent, after which time a node is missed, the lineage it knows or a new one.
var beatScript = rueidis.NewLuaScript(`
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local server = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
local era = redis.call('HMGET', KEYS[2], 'id', 'opens', 'server')
local settle, opens = tonumber(ARGV[5]), tonumber(era[2] or 0)
if not era[1] or era[3] ~= server or opens > now + 600000 or (ARGV[3] == '1' and ARGV[2] == era[1] and now >= opens) then
  era[1], opens = ARGV[4], now + settle
end
if ARGV[2] ~= '' and ARGV[2] ~= era[1] then opens = math.max(opens, now + settle) end
redis.call('HSET', KEYS[2], 'id', era[1], 'opens', opens, 'server', server)
redis.call('ZADD', KEYS[1], now, ARGV[1])
-- Until an era opens, nodes come back that could not say that they live.
if now >= opens and redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - tonumber(ARGV[6])) > 0 then
  redis.call('HSET', KEYS[2], 'left', now)
end
local left = redis.call('HGET', KEYS[2], 'left')
redis.call('SET', KEYS[4], ARGV[7], 'NX')
return {era[1], math.max(0, opens - now), redis.call('ZCARD', KEYS[1]), redis.call('GET', KEYS[4]), tonumber(redis.call('GET', KEYS[3]) or 0), left and math.max(0, now - left) or -1}`)

// leaveScript says that a node goes.
//
// KEYS: nodes, era. ARGV: node.
var leaveScript = rueidis.NewLuaScript(`
local t = redis.call('TIME')
if redis.call('ZREM', KEYS[1], ARGV[1]) > 0 then
  redis.call('HSET', KEYS[2], 'left', t[1] * 1000 + math.floor(t[2] / 1000))
end
return 0`)

// leaseScript gives a part of a key's limit to a node, for a time. What is given is counted until that time is
// over and a period after it: then whatever the node admitted with it is older than the period. So in any
// interval of length period no more is admitted, by all nodes together, than the limit: at the newest grant
// whose admissions lie in the interval all others with admissions in it were counted.
//
// The hash has the sum of what is counted (sum), and how much of it ends in each 80th of a period (the number of that
// as the field), so that forgetting costs as many steps as there is to forget. It returns what was given, in which
// 80th that ends, what is free after it, and when nothing was given how long until something may be. Given is otherEra in
// another era than the node's, and -2 while the era has not opened.
//
// KEYS: the window, era. ARGV: era, period, limit, least, wanted, lease time, nodes, spent elsewhere, then pairs of an 80th and what
// comes back of it.
var leaseScript = rueidis.NewLuaScript(`
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local era = redis.call('HMGET', KEYS[2], 'id', 'opens', 'server')
if era[1] ~= ARGV[1] then return {-1, 0, 0, 0} end
-- Another process than the one in which the era began may have lost what was counted. The next beat begins a new era.
if tonumber(ARGV[5]) > 0 and era[3] ~= string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') then return {-1, 0, 0, 0} end
local period, limit, least, want, lease, nodes = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local h = redis.call('HMGET', KEYS[1], 'era', 'period', 'sum', 'oldest', 'now')
now = math.max(now, tonumber(h[5] or 0))
local width = math.max(1, math.ceil(period / 80))
local current = math.floor(now / width)
local first = math.floor((now - period) / width)
local sum, oldest = tonumber(h[3] or 0), tonumber(h[4] or first)
local spent = tonumber(ARGV[8])
if not h[1] or h[1] ~= ARGV[1] then
  redis.call('DEL', KEYS[1])
  sum, oldest = 0, first
elseif tonumber(h[2]) ~= period then
  redis.call('DEL', KEYS[1])
  spent = spent + sum
  sum, oldest = 0, first
end
if first - oldest > 400 then
  redis.call('DEL', KEYS[1])
  sum, oldest = 0, first
end
while oldest < first do
  local n = redis.call('HGET', KEYS[1], oldest)
  if n then
    sum = sum - n
    redis.call('HDEL', KEYS[1], oldest)
  end
  oldest = oldest + 1
end
for i = 9, #ARGV, 2 do
  local n = math.min(tonumber(redis.call('HGET', KEYS[1], ARGV[i]) or 0), tonumber(ARGV[i + 1]))
  if n > 0 then
    redis.call('HINCRBY', KEYS[1], ARGV[i], -n)
    sum = sum - n
  end
end
if spent > 0 then
  redis.call('HINCRBY', KEYS[1], current, spent)
  sum = sum + spent
end
-- A millisecond more: TIME's rest was dropped.
local free, grant, ends, retry, unopened = limit - sum, 0, math.floor((now + 1 + lease) / width), 0, false
if want > 0 then
  if now < tonumber(era[2]) then
    unopened, retry = true, tonumber(era[2]) - now
  elseif free >= least then
    grant = math.min(want, free)
    if nodes > 1 then grant = math.max(least, math.min(grant, math.floor(free / (nodes + 1)))) end
    redis.call('HINCRBY', KEYS[1], ends, grant)
    sum = sum + grant
  else
    local soon = free
    for i = oldest, ends do
      soon = soon + tonumber(redis.call('HGET', KEYS[1], i) or 0)
      if soon >= least then
        retry = (i + 1) * width + period - now
        break
      end
    end
    retry = math.max(retry, 1)
  end
end
redis.call('HSET', KEYS[1], 'era', ARGV[1], 'period', period, 'sum', sum, 'oldest', oldest, 'now', now)
redis.call('PEXPIRE', KEYS[1], 2 * period + lease)
return {unopened and -2 or grant, ends, math.max(0, limit - sum), retry}`)

// otherEra is what leaseScript gives a node that does not know the era. Below zero are all grants
// that are refused because nobody knows what has been spent.
const otherEra = -1
