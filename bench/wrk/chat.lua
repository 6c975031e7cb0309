-- wrk -t1 -c64 -d10s -s bench/wrk/chat.lua http://127.0.0.1:8080/v1/chat/completions
-- SLUICE_KEY is the gateway key, SIZE the bytes of a request's body (300), MODEL the model (demo).
local size = tonumber(os.getenv("SIZE") or "300")
local head = '{"model":"' .. (os.getenv("MODEL") or "demo") .. '","messages":[{"role":"user","content":"'
local tail = '"}]}'

wrk.method = "POST"
wrk.headers["Authorization"] = "Bearer " .. (os.getenv("SLUICE_KEY") or error("SLUICE_KEY is not set"))
wrk.headers["Content-Type"] = "application/json"
wrk.body = head .. string.rep("water ", math.ceil(size / 6)):sub(1, math.max(1, size - #head - #tail)) .. tail

function done(summary, latency)
  local bad = summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
  io.write(string.format("p50 %.2f ms, p99 %.2f ms, %d of %d not 200\n",
    latency:percentile(50) / 1000, latency:percentile(99) / 1000, bad, summary.requests))
end
