package proxy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/valyala/fasthttp"

	"sluice/jsontext"
)

// An HTTP error that is no answer of an API (a page of a load balancer, "404 page not found", nothing at all)
// is foreign: the client's SDK cannot read it, and would not say which upstream has sent it. Its status stays,
// and its body is replaced by an error in the client's dialect. What it said is quoted nowhere.

// isForeign reports whether body, of an HTTP error and maybe with the gateway's member in it, is not JSON. One
// that has not ended is told by its beginning.
func (r *request) isForeign(body []byte, ended bool) bool {
	h := &r.exchange.Response
	if r.isEncoded() {
		return !isJSON(h.ContentType())
	}
	start := jsontext.SkipSpace(body, 0)
	switch {
	case start == len(body):
		return true
	case ended:
		return !json.Valid(body)
	}
	return body[start] != '{' && body[start] != '['
}

// replyForeign answers with the attempt's status and headers, and an error of our own as the body.
func (r *request) replyForeign(a *attempt) {
	r.copyHead(a)
	h := &r.ctx.Response.Header
	for _, name := range bodyHeaders {
		h.Del(name)
	}
	h.SetContentTypeBytes(typeJSON)
	r.replied()
	r.dropAnswer()
	r.failure = r.foreignFailure(a)
	body := appendError(nil, r.dialect(), r.failure)
	member := append(r.appendMember([]byte{'{'}), ',')
	r.ctx.Response.SetBodyRaw(append(member, bytes.TrimPrefix(body, []byte{'{'})...))
}

// bodyHeaders say something of the body that is replaced.
var bodyHeaders = [...]string{fasthttp.HeaderContentEncoding, fasthttp.HeaderContentLanguage, fasthttp.HeaderContentLocation,
	fasthttp.HeaderContentDisposition, fasthttp.HeaderContentRange, fasthttp.HeaderETag, fasthttp.HeaderLastModified, fasthttp.HeaderAcceptRanges}

// foreignFailure is what the client reads of a foreign error. The path below base_url is the operator's own, and
// only in the log.
func (r *request) foreignFailure(a *attempt) *failure {
	f := refusal(upstreamError, "", "upstream %s answered POST %s with status %d and without an error in JSON", a.target.Upstream.Name, r.route.path, a.status)
	switch a.status {
	case 404, 405, 501:
		f.message += "; it may have nothing at this path, or not speak this API"
	}
	f.ownStatus = true
	f.cause = fmt.Errorf("POST %s%s: %w", a.target.BasePath, r.route.path, errForeign)
	return f
}

var errForeign = errors.New("the body of the HTTP error is not JSON")
