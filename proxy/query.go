package proxy

import (
	"bytes"
	"net/url"
	"strings"

	"sluice/pool"
)

// appendQuery appends ?query: the client's parameters, without those that the target sets itself, and
// then the target's. Some servers separate parameters with a semicolon too, so that it ends one here.
func appendQuery(dst, client []byte, target *pool.Target) []byte {
	if len(target.Query) == 0 {
		if len(client) == 0 {
			return dst
		}
		return append(append(dst, '?'), client...)
	}
	dst = append(dst, '?')
	empty := len(dst)
	for separator := byte('&'); len(client) > 0; {
		end := bytes.IndexAny(client, "&;")
		if end < 0 {
			end = len(client)
		}
		if pair := client[:end]; len(pair) > 0 && !replacesParameter(target, pair) {
			if len(dst) > empty {
				dst = append(dst, separator)
			}
			dst = append(dst, pair...)
		}
		if end == len(client) {
			break
		}
		separator, client = client[end], client[end+1:]
	}
	if len(dst) > empty {
		dst = append(dst, '&')
	}
	return append(dst, target.Query...)
}

// replacesParameter reports whether the target sets the parameter that pair (name=value) is for. Case
// makes no difference: to some servers it is the same parameter.
func replacesParameter(target *pool.Target, pair []byte) bool {
	name, _, _ := bytes.Cut(pair, []byte{'='})
	decoded, err := url.QueryUnescape(borrowString(name))
	if err != nil {
		decoded = borrowString(name)
	}
	for _, n := range target.QueryNames {
		if strings.EqualFold(n, decoded) {
			return true
		}
	}
	return false
}
