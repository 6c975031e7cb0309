-- beat says that a node lives.
--
-- An era ends when somebody may have spent what is not counted here: Redis was emptied, or is another
-- process than before (which may have lost something), or the node has heard nothing for too long. In
-- a new era every node declares what it has spent of late. Leases are given when all have had the time
-- to: each node puts that off by the time that it needs.
--
-- KEYS: nodes, era, version, lineage
-- ARGV: node, the era it knows, 1 if it was cut off, an id for a new era, the time it needs to declare
-- what it has spent, the time after which a node is missed, the lineage it knows or an id for a new one
-- Returns the era; in how long leases are given in it; how many nodes there are; the lineage and the
-- version of the keys' changes; how long ago a node last went, -1 if none has.
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
return {era[1], math.max(0, opens - now), redis.call('ZCARD', KEYS[1]), redis.call('GET', KEYS[4]), tonumber(redis.call('GET', KEYS[3]) or 0), left and math.max(0, now - left) or -1}
