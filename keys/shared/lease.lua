-- lease gives a part of a key's limit to a node, for a time. What is given is counted until that time
-- is over and a period after it: then whatever the node admitted with it is older than the period. So
-- in any interval of length period all nodes together admit no more than the limit. When the newest
-- lease whose admissions lie in the interval was given, all others with admissions in it were counted.
--
-- The window is a hash. It has the sum of what is counted (sum), and how much of that ends in each 80th
-- of a period (its number is the field), so that forgetting costs as many steps as there is to forget.
--
-- KEYS: the window, era
-- ARGV: era, period, limit, least, wanted, lease time, nodes, what was spent without a lease, and then
-- pairs of an 80th and what comes back of it
-- Returns what was given; the 80th in which that ends; what is free after it; and when nothing was
-- given, how long until something may be. Given is -1 in another era than the node's, and -2 while the
-- era has not opened.
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
return {unopened and -2 or grant, ends, math.max(0, limit - sum), retry}
