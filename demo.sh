#!/bin/sh
# Starts sluice on config.yaml together with a built-in provider for the model "demo",
# makes an admin token and a development key under data/ where there are none, and prints a
# request that works as pasted. "make run" calls it; it ends with Ctrl-C, or with its terminal.
set -eu
cd "$(dirname "$0")"
umask 077

run=$(mktemp -d)
mock='' sluice='' reader='' made=''
newest() { sed -n 's/.*"pid":\([0-9]*\).*/\1/p' "$run/serves" 2>/dev/null; } # another may have taken over
end() {
	trap - EXIT
	trap '' HUP INT TERM # once is enough: the processes end by themselves
	# shellcheck disable=SC2046
	[ -z "$sluice" ] || kill "$sluice" $(newest) 2>/dev/null || true
	[ -z "$reader" ] || wait "$reader" || true # what they had to say, until the last has drained
	[ -z "$mock" ] || kill "$mock" 2>/dev/null || true
	wait
	rm -rf "$run"
}
trap end EXIT
trap 'exit 0' HUP INT TERM

# Nothing under data/ is touched, and nobody is given the token, before both programs say that
# they serve: their ports may be another's.
if [ -z "${SLUICE_ADMIN_TOKEN:-}" ]; then
	SLUICE_ADMIN_TOKEN=$(cat data/admin.token 2>/dev/null) || SLUICE_ADMIN_TOKEN=''
	[ -n "$SLUICE_ADMIN_TOKEN" ] || SLUICE_ADMIN_TOKEN=$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')
	export SLUICE_ADMIN_TOKEN
	made=$SLUICE_ADMIN_TOKEN
fi

failed() {
	echo "make run: $1 did not start; the line above says why. Nothing was changed." >&2
	exit 1
}
./sluice mock -listen 127.0.0.1:8081 2>"$run/mock" &
mock=$!
until grep -q 'listens on' "$run/mock"; do
	kill -0 "$mock" 2>/dev/null || { cat "$run/mock" >&2; failed "the demo provider"; }
	sleep 0.1
done

# The log goes on to stderr, but for the line that says who serves where.
mkfifo "$run/log"
(
	trap '' HUP INT TERM PIPE # it reads on for as long as anybody writes
	while IFS= read -r line; do
		printf '%s\n' "$line" >&2 || true
		case $line in *'"msg":"sluice serves"'*) printf '%s\n' "$line" >"$run/serves.new" && mv "$run/serves.new" "$run/serves" ;; esac
	done <"$run/log"
) &
reader=$!
exec 3>"$run/log"
./sluice -config config.yaml 2>&3 3>&- &
sluice=$!
exec 3>&-
until [ "$(newest)" = "$sluice" ]; do
	kill -0 "$sluice" 2>/dev/null || { wait "$reader" || true; failed sluice; }
	sleep 0.1
done
address() { sed -n 's/.*"'"$1"'":"\([^"]*\)".*/\1/p' "$run/serves" | sed 's/^\[::\]:/127.0.0.1:/; s/^0\.0\.0\.0:/127.0.0.1:/'; }
data=http://$(address listen)
admin=http://$(address admin)

mkdir -p data
[ -z "$made" ] || [ -s data/admin.token ] || printf %s "$made" >data/admin.token
request() { curl -fsS --noproxy '*' -m 10 -H "Authorization: Bearer $1" "$2" -d "$3"; }
known() { curl -fsS --noproxy '*' -m 10 -o /dev/null -H "Authorization: Bearer $1" "$data/v1/key" 2>/dev/null; }
if ! { [ -s data/dev.key ] && known "$(cat data/dev.key)"; }; then
	key=$(request "$SLUICE_ADMIN_TOKEN" "$admin/api/keys" '{"name":"development"}' | sed -n 's/.*"key":"\([^"]*\)".*/\1/p')
	[ -n "$key" ] || { echo "make run: sluice made no development key; the line above says why" >&2; exit 1; }
	printf '%s\n' "$key" >data/dev.key
fi

cat <<END

sluice serves $data, its admin port is $admin. Try it (leave "stream":true out for a plain answer):

curl -sN $data/v1/chat/completions -H "Authorization: Bearer $(cat data/dev.key)" -H "Content-Type: application/json" -d '{"model":"demo","stream":true,"messages":[{"role":"user","content":"Hello"}]}'

END
wait "$reader" # until sluice, or what took over from it, has ended
wait "$sluice"
