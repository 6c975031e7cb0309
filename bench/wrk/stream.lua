-- wrk -t1 -c16 -d10s -s bench/wrk/stream.lua http://127.0.0.1:8080/v1/chat/completions
-- SLUICE_KEY is the gateway key, MODEL the model (demo). wrk counts whole streams.
wrk.method = "POST"
wrk.headers["Authorization"] = "Bearer " .. (os.getenv("SLUICE_KEY") or error("SLUICE_KEY is not set"))
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"model":"' .. (os.getenv("MODEL") or "demo") .. '","stream":true,"messages":[{"role":"user","content":"Hello"}]}'
