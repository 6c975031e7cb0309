#!/bin/sh
# A fixed rate, with the vegeta command that bench/go.mod names: RATE=1000 DURATION=10s sh bench/vegeta/attack.sh
# SLUICE_KEY is the gateway key, MODEL the model (demo), URL the data port's.
set -eu
: "${SLUICE_KEY:?is not set}"
url=${URL:-http://127.0.0.1:8080}/v1/chat/completions
body=$(mktemp)
trap 'rm -f "$body"' EXIT
printf '{"model":"%s","messages":[{"role":"user","content":"Hello"}]}' "${MODEL:-demo}" >"$body"
printf 'POST %s\nAuthorization: Bearer %s\nContent-Type: application/json\n@%s\n' "$url" "$SLUICE_KEY" "$body" |
	go tool -modfile=bench/go.mod vegeta attack -rate "${RATE:-1000}" -duration "${DURATION:-10s}" | go tool -modfile=bench/go.mod vegeta report
