package proxy

import (
	"bytes"
	"strconv"

	"github.com/valyala/fasthttp"

	"sluice/pool"
)

// writeHead writes the upstream request's line and headers. Names and values are as the server
// has read them: it and checkHead have refused what could end a line, or no name may have.
func (r *request) writeHead(target *pool.Target) {
	from := &r.ctx.Request.Header
	b := append(r.head[:0], "POST "...)
	b = append(append(b, target.BasePath...), r.route.path...)
	b = appendQuery(b, r.ctx.URI().QueryString(), target)
	b = append(b, target.Head...)

	for name, value := range from.All() {
		if travels(name, target) && !r.hops.have(name) {
			b = pool.AppendHeader(b, name, value)
		}
	}
	if !target.Replaces(headerContentType) {
		b = pool.AppendHeader(b, headerContentType, typeJSON)
	}
	b = pool.AppendHeader(b, headerRequestID, r.id)
	length := 0
	for _, piece := range r.upstream {
		length += len(piece)
	}
	b = append(b, "Content-Length: "...)
	b = strconv.AppendInt(b, int64(length), 10)
	r.head = append(b, "\r\n\r\n"...)
}

var (
	headerContentType = []byte(fasthttp.HeaderContentType)
	typeJSON          = []byte("application/json")
	typeEvents        = []byte("text/event-stream")
)

// travels reports whether the client's header called name goes to target.
func travels(name []byte, target *pool.Target) bool {
	return !(requestDrops.has(name) && !target.Passes(name)) && !target.Replaces(name)
}

// requestDrops are the client's headers that go no further: hop-by-hop headers, credentials, what
// describes the body or the request's way (the gateway writes these itself, or a proxy in front of it
// has), what names another method or path, and what a browser adds.
var requestDrops = newHeaderList(
	[]string{"proxy-", "x-forwarded-", "cf-", "x-envoy-", "x-amzn-", "x-original-", "x-auth-request-", "sec-", "x-portkey-"},
	"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade",
	"host", "content-length", "content-type", "content-encoding", "accept-encoding", "expect", "x-request-id",
	"cookie", "authorization", "x-api-key", "api-key", "x-goog-api-key", "openai-organization", "openai-project",
	"forwarded", "cdn-loop", "via", "x-real-ip", "true-client-ip", "x-client-ip", "fastly-client-ip", "x-cluster-client-ip",
	"x-rewrite-url", "x-http-method-override", "x-http-method", "x-method-override", "origin", "referer")

// responseDrops are the upstream's headers that go no further.
var responseDrops = newHeaderList([]string{"x-ratelimit-", "x-sluice-", "access-control-"},
	"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade",
	"proxy-authenticate", "proxy-authentication-info", "proxy-connection",
	"content-length", "date", "set-cookie", "openai-organization", "alt-svc",
	"x-request-id", "request-id") // the gateway has these for its own id

// mediaType is a Content-Type without its parameters.
func mediaType(contentType []byte) []byte {
	mt, _, _ := bytes.Cut(contentType, []byte{';'})
	return bytes.TrimSpace(mt)
}

func isEventStream(contentType []byte) bool {
	return bytes.EqualFold(mediaType(contentType), typeEvents)
}

func isJSON(contentType []byte) bool {
	const suffix = "+json"
	mt := mediaType(contentType)
	return bytes.EqualFold(mt, []byte("application/json")) ||
		len(mt) >= len(suffix) && bytes.EqualFold(mt[len(mt)-len(suffix):], []byte(suffix))
}
