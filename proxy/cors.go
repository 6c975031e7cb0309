package proxy

import (
	"slices"

	"github.com/valyala/fasthttp"
)

// crossOrigin is what pages of other origins may do in a browser (WHATWG Fetch, "CORS protocol"). nil
// where the configuration allows none. Credentials are headers that a page sets, never cookies, so that
// the answer does not speak of them.
type crossOrigin struct{ origins []string }

func newCrossOrigin(origins []string) *crossOrigin {
	if len(origins) == 0 {
		return nil
	}
	return &crossOrigin{origins}
}

func (c *crossOrigin) allows(origin []byte) bool {
	return len(origin) > 0 && (slices.Contains(c.origins, "*") || slices.Contains(c.origins, borrowString(origin)))
}

// exposedHeaders are those of an answer that a page may read, besides the few that it always may.
const exposedHeaders = "X-Request-Id, Request-Id, Retry-After, X-Should-Retry, X-Sluice-Model, X-Sluice-Upstream, X-Sluice-Attempts, X-Sluice-Trail, " +
	"X-Sluice-Upstream-Request-Id, " +
	"X-Ratelimit-Limit-Requests, X-Ratelimit-Remaining-Requests, X-Ratelimit-Reset-Requests, " +
	"X-Ratelimit-Limit-Tokens, X-Ratelimit-Remaining-Tokens, X-Ratelimit-Reset-Tokens"

// setCrossOrigin tells a browser whether the page may read the answer.
func (r *request) setCrossOrigin() {
	cors := r.snapshot.cors
	if cors == nil {
		return
	}
	h := &r.ctx.Response.Header
	h.Add(fasthttp.HeaderVary, "Origin")
	if origin := r.ctx.Request.Header.Peek(fasthttp.HeaderOrigin); cors.allows(origin) {
		h.SetBytesV(fasthttp.HeaderAccessControlAllowOrigin, origin)
		h.Set(fasthttp.HeaderAccessControlExposeHeaders, exposedHeaders)
	}
}

// preflight answers the question that a browser asks before it sends a page's request, without a key.
// False if it is none, or the page may not.
func (r *request) preflight() bool {
	asked := &r.ctx.Request.Header
	cors := r.snapshot.cors
	if cors == nil || !r.ctx.IsOptions() || len(asked.Peek(fasthttp.HeaderAccessControlRequestMethod)) == 0 ||
		!cors.allows(asked.Peek(fasthttp.HeaderOrigin)) {
		return false
	}
	r.status = fasthttp.StatusNoContent
	r.ctx.SetStatusCode(r.status)
	r.setOwnHeaders()
	h := &r.ctx.Response.Header
	h.Set(fasthttp.HeaderAccessControlAllowMethods, "GET, HEAD, POST")
	if names := asked.Peek(fasthttp.HeaderAccessControlRequestHeaders); len(names) > 0 {
		h.SetBytesV(fasthttp.HeaderAccessControlAllowHeaders, names)
	}
	h.Set(fasthttp.HeaderAccessControlMaxAge, "600")
	return true
}
