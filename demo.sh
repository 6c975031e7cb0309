#!/bin/sh
# Starts sluice on config.yaml together with a built-in provider for the model "demo",
# makes an admin token and a development key under data/ where there are none, and prints a
# request that works as pasted. "make run" calls it; it ends with Ctrl-C.
set -eu
cd "$(dirname "$0")"

umask 077
mkdir -p data
if [ -z "${SLUICE_ADMIN_TOKEN:-}" ]; then
	[ -s data/admin.token ] || head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >data/admin.token
	SLUICE_ADMIN_TOKEN=$(cat data/admin.token)
	export SLUICE_ADMIN_TOKEN
fi

data=http://127.0.0.1:8080
admin=http://127.0.0.1:9090
mock= sluice=
end() {
	trap - EXIT
	[ -z "$sluice" ] || kill "$sluice" 2>/dev/null || true
	[ -z "$sluice" ] || wait "$sluice" || true
	[ -z "$mock" ] || kill "$mock" 2>/dev/null || true
}
trap end EXIT
trap 'exit 0' INT TERM

./sluice mock -listen 127.0.0.1:8081 &
mock=$!
./sluice -config config.yaml &
sluice=$!
until curl -fsS -o /dev/null "$admin/readyz" 2>/dev/null && kill -0 "$mock" 2>/dev/null; do
	for pid in "$mock" "$sluice"; do
		kill -0 "$pid" 2>/dev/null || { echo "it did not start; see above" >&2; exit 1; }
	done
	sleep 0.1
done

authorized() { curl -fsS -o /dev/null -H "Authorization: Bearer $1" "$2" 2>/dev/null; }
if ! { [ -s data/dev.key ] && authorized "$(cat data/dev.key)" "$data/v1/key"; }; then
	curl -fsS -H "Authorization: Bearer $SLUICE_ADMIN_TOKEN" -d '{"name":"development"}' "$admin/api/keys" |
		sed -n 's/.*"key":"\([^"]*\)".*/\1/p' >data/dev.key
	[ -s data/dev.key ] || { echo "could not make a development key; is $admin another sluice?" >&2; exit 1; }
fi

cat <<END

sluice serves $data, its admin port is $admin. Try it (leave "stream":true out for a plain answer):

curl -sN $data/v1/chat/completions -H "Authorization: Bearer $(cat data/dev.key)" -H "Content-Type: application/json" -d '{"model":"demo","stream":true,"messages":[{"role":"user","content":"Hello"}]}'

END
wait "$sluice"
