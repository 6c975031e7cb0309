package proxy

import (
	"bytes"
	"net/url"
	"strings"

	"github.com/valyala/fasthttp"

	"sluice/pool"
)

// writeHead fills in the upstream request's line and headers.
func (r *request) writeHead(target *pool.Target) {
	from, to := &r.ctx.Request.Header, &r.exchange.Request
	to.SetMethod(fasthttp.MethodPost)
	to.SetHostBytes(target.Host)
	r.scratch = append(append(r.scratch[:0], target.BasePath...), r.route.path...)
	r.scratch = appendQuery(r.scratch, r.ctx.URI().QueryString(), target)
	to.SetRequestURIBytes(r.scratch)

	hops := ""
	for name, value := range from.All() {
		if string(name) == fasthttp.HeaderConnection {
			hops = addTokens(hops, value)
		}
	}
	for name, value := range from.All() {
		if !dropped(name, requestDrops, requestDropPrefixes) && !inTokens(hops, name) && !target.Replaces(name) {
			to.AddBytesKV(name, value)
		}
	}
	if len(to.ContentType()) == 0 {
		to.SetContentType("application/json")
	}
	for i := range target.Headers {
		to.AddBytesKV(target.Headers[i].Name, target.Headers[i].Value)
	}
	to.Set("Accept-Encoding", "identity")
	to.SetBytesV("X-Request-Id", r.id)
}

// requestDrops are the client's headers that go no further, in lower case: hop-by-hop
// ones, credentials, and what would speak for the client where the gateway speaks.
var requestDrops = set("connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade",
	"host", "content-length", "accept-encoding", "expect", "cookie", "authorization", "x-api-key", "api-key",
	"x-goog-api-key", "openai-organization", "openai-project", "forwarded", "x-request-id", "content-encoding")

var requestDropPrefixes = []string{"proxy-", "x-forwarded-"}

// responseDrops are the upstream's headers that go no further.
var responseDrops = set("connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade",
	"proxy-authenticate", "proxy-authentication-info", "proxy-connection",
	"content-length", "date", "set-cookie", "openai-organization", "alt-svc", "x-request-id")

var responseDropPrefixes = []string{"x-ratelimit-", "x-sluice-"}

func set(names ...string) map[string]bool {
	m := make(map[string]bool, len(names))
	for _, n := range names {
		m[n] = true
	}
	return m
}

// dropped reports whether a header, its name in any case, is on a list.
func dropped(name []byte, names map[string]bool, prefixes []string) bool {
	var buf [32]byte
	if len(name) > len(buf) {
		name = name[:len(buf)] // longer than any on the lists, but maybe of a prefix
	}
	lower := buf[:len(name)]
	for i, c := range name {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		lower[i] = c
	}
	if names[string(lower)] {
		return true
	}
	for _, p := range prefixes {
		if len(lower) >= len(p) && string(lower[:len(p)]) == p {
			return true
		}
	}
	return false
}

// addTokens adds what a Connection header names besides keep-alive and close, which is
// nearly always nothing.
func addTokens(tokens string, value []byte) string {
	if bytes.EqualFold(value, keepAlive) || bytes.EqualFold(value, closeToken) {
		return tokens
	}
	return tokens + string(value) + ","
}

var (
	keepAlive  = []byte("keep-alive")
	closeToken = []byte("close")
)

func inTokens(tokens string, name []byte) bool {
	if tokens == "" {
		return false
	}
	for t := range strings.SplitSeq(tokens, ",") {
		if strings.EqualFold(strings.TrimSpace(t), string(name)) {
			return true
		}
	}
	return false
}

// appendQuery appends ?query: the client's, without the parameters that the target has its
// own values for, and those.
func appendQuery(dst, client []byte, target *pool.Target) []byte {
	if len(target.Query) == 0 {
		if len(client) == 0 {
			return dst
		}
		return append(append(dst, '?'), client...)
	}
	dst = append(dst, '?')
	for len(client) > 0 {
		var pair []byte
		pair, client, _ = bytes.Cut(client, ampersand)
		name, _, _ := bytes.Cut(pair, equals)
		if len(pair) > 0 && !replacesParameter(target, name) {
			dst = append(append(dst, pair...), '&')
		}
	}
	return append(dst, target.Query...)
}

var (
	ampersand = []byte{'&'}
	equals    = []byte{'='}
)

func replacesParameter(target *pool.Target, name []byte) bool {
	decoded, err := url.QueryUnescape(string(name))
	if err != nil {
		decoded = string(name)
	}
	for _, n := range target.QueryNames {
		if n == decoded {
			return true
		}
	}
	return false
}

// mediaType is a Content-Type without its parameters.
func mediaType(contentType []byte) []byte {
	mt, _, _ := bytes.Cut(contentType, []byte{';'})
	return bytes.TrimSpace(mt)
}

func isEventStream(contentType []byte) bool {
	return bytes.EqualFold(mediaType(contentType), []byte("text/event-stream"))
}

func isJSON(contentType []byte) bool {
	const suffix = "+json"
	mt := mediaType(contentType)
	return bytes.EqualFold(mt, []byte("application/json")) ||
		len(mt) >= len(suffix) && bytes.EqualFold(mt[len(mt)-len(suffix):], []byte(suffix))
}
