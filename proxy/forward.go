package proxy

import (
	"bytes"
	"errors"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"sluice/pool"
)

// forward finds a target that answers and makes its answer the client's.
func (r *request) forward() *failure {
	return r.try(r.models[0].Pick())
}

// try is one attempt. nil means that the answer is under way or complete.
func (r *request) try(target *pool.Target) *failure {
	r.attempts = append(r.attempts, attempt{target: target, began: time.Now()})
	a := &r.attempts[len(r.attempts)-1]
	if err := r.send(target, a.began); err != nil {
		return r.failed(a, err)
	}
	a.status = r.exchange.Response.StatusCode()
	switch {
	case a.status < 200: // 101 to a request that asked for no other protocol
		return r.failed(a, &pool.Error{Cause: pool.MalformedResponse, Err: errStatus(a.status)})
	case a.status == 401, a.status == 402, a.status == 403:
		// It is the gateway's credential that was refused, not the client's.
		return r.failed(a, &pool.Error{Cause: pool.StatusRefused, Err: errStatus(a.status)})
	case a.status/100 == 3:
		return r.failed(a, &pool.Error{Cause: pool.Redirected, Err: errStatus(a.status)})
	}
	h := &r.exchange.Response.Header
	if a.status/100 == 2 && isEventStream(h.ContentType()) && len(h.ContentEncoding()) == 0 {
		return r.replyStream(a)
	}
	return r.reply(a)
}

type errStatus int

func (e errStatus) Error() string { return "status " + strconv.Itoa(int(e)) }

// failed ends an attempt that failed. An err that is no *pool.Error is of an answer that
// broke off.
func (r *request) failed(a *attempt, err error) *failure {
	a.took, a.failed, a.cause = time.Since(a.began), true, pool.ResponseBroken
	var e *pool.Error
	if errors.As(err, &e) {
		a.cause = e.Cause
	}
	if a.cause == pool.FirstByteTimeout && !r.fields.stream {
		a.cause = pool.ResponseTimeout
	}
	if a.cause != pool.ClientLeft && a.cause != pool.ShuttingDown {
		a.target.Upstream.Failed(a.cause)
	}
	return upstreamFailure(a.cause, a.target.Upstream.Name, err)
}

// send writes the request to the target and reads the head of its answer.
func (r *request) send(target *pool.Target, now time.Time) error {
	r.exchange = pool.Acquire()
	r.upstream = r.rewrite(r.upstream[:0], target)
	r.writeHead(target)
	r.exchange.Request.SetBodyRaw(r.upstream)
	r.conn.await(r.exchange)
	return r.exchange.Send(target, r.headDeadline(target, now))
}

// headDeadline is until when the head of an answer must be there. An answer to a plain
// request may take until the whole of it must be there.
func (r *request) headDeadline(target *pool.Target, now time.Time) time.Time {
	d := r.replyDeadline(target, now)
	if r.fields.stream {
		d = earlier(d, now.Add(target.Timeouts.FirstByte.Std()))
	}
	if r.fields.firstByteTimeout > 0 {
		d = earlier(d, now.Add(r.fields.firstByteTimeout))
	}
	return d
}

// replyDeadline is until when a plain answer must be whole.
func (r *request) replyDeadline(target *pool.Target, now time.Time) time.Time {
	d := earlier(r.began.Add(target.Timeouts.Total.Std()), now.Add(target.Timeouts.Response.Std()))
	if r.fields.timeout > 0 {
		d = earlier(d, r.began.Add(r.fields.timeout))
	}
	return d
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// writeHead fills in the upstream request's line and headers.
func (r *request) writeHead(target *pool.Target) {
	from, to := &r.ctx.Request.Header, &r.exchange.Request.Header
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
