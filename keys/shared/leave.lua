-- leave says that a node goes.
--
-- KEYS: nodes, era
-- ARGV: node
local t = redis.call('TIME')
if redis.call('ZREM', KEYS[1], ARGV[1]) > 0 then
  redis.call('HSET', KEYS[2], 'left', t[1] * 1000 + math.floor(t[2] / 1000))
end
return 0
