package proxy

import (
	"bytes"
	"strconv"
	"time"

	"sluice/limiter"
	"sluice/pool"
)

// The names of what the gateway adds to an answer, in the spelling that fasthttp writes.
var (
	headerRequestID   = []byte("X-Request-Id")
	headerAnthropicID = []byte("Request-Id")
	headerUpstreamID  = []byte("X-Sluice-Upstream-Request-Id")
	headerModel       = []byte("X-Sluice-Model")
	headerUpstream    = []byte("X-Sluice-Upstream")
	headerAttempts    = []byte("X-Sluice-Attempts")
	headerTrail       = []byte("X-Sluice-Trail")
	headerLimit       = []byte("X-Ratelimit-Limit-Requests")
	headerRemaining   = []byte("X-Ratelimit-Remaining-Requests")
	headerReset       = []byte("X-Ratelimit-Reset-Requests")

	headerLimitTokens     = []byte("X-Ratelimit-Limit-Tokens")
	headerRemainingTokens = []byte("X-Ratelimit-Remaining-Tokens")
	headerResetTokens     = []byte("X-Ratelimit-Reset-Tokens")
)

// setOwnHeaders puts what the gateway adds to every answer into the response's head.
func (r *request) setOwnHeaders() {
	h := &r.ctx.Response.Header
	h.SetCanonical(headerRequestID, r.id)
	if r.dialect() == anthropic {
		h.SetCanonical(headerAnthropicID, r.id) // where Anthropic's SDKs look for it
	}
	if len(r.upstreamID) > 0 {
		h.SetCanonical(headerUpstreamID, r.upstreamID)
	}
	r.setCrossOrigin()
	if n := len(r.attempts); n > 0 {
		last := r.attempts[n-1].target
		h.SetCanonical(headerModel, borrowBytes(last.Model))
		h.SetCanonical(headerUpstream, borrowBytes(last.Upstream.Name))
		h.SetCanonical(headerTrail, r.trail())
	} else if len(r.models) > 0 {
		h.SetCanonical(headerModel, borrowBytes(r.models[0].Name))
	}
	r.setNumber(headerAttempts, int64(len(r.attempts)))
	if r.key == nil {
		return
	}
	if !r.limited {
		// Nothing was charged yet; what is left is shown all the same.
		r.limitState, r.limited = r.key.Left(r.proxy.clock())
	}
	if r.limited {
		r.setState(&r.limitState, headerLimit, headerRemaining, headerReset)
	}
	if !r.tokens.limited {
		r.tokens.state, _, r.tokens.limited = r.key.LeftTokens(r.proxy.clock(), 0)
	}
	if r.tokens.limited {
		r.setState(&r.tokens.state, headerLimitTokens, headerRemainingTokens, headerResetTokens)
	}
}

func (r *request) setState(s *limiter.State, limit, remaining, reset []byte) {
	r.setNumber(limit, s.Limit)
	r.setNumber(remaining, s.Remaining)
	r.scratch = appendDuration(r.scratch[:0], s.Reset)
	r.ctx.Response.Header.SetCanonical(reset, r.scratch)
}

func (r *request) setNumber(name []byte, n int64) {
	r.scratch = strconv.AppendInt(r.scratch[:0], n, 10)
	r.ctx.Response.Header.SetCanonical(name, r.scratch)
}

// appendDuration writes d, rounded up, as OpenAI does: "120ms", "7.660s".
func appendDuration(dst []byte, d time.Duration) []byte {
	ms := int64((max(0, d) + time.Millisecond - 1) / time.Millisecond)
	if ms < 1000 {
		return append(strconv.AppendInt(dst, ms, 10), "ms"...)
	}
	dst = append(strconv.AppendInt(dst, ms/1000, 10), '.')
	ms %= 1000
	return append(dst, byte('0'+ms/100), byte('0'+ms/10%10), byte('0'+ms%10), 's')
}

// maxTrail bounds the trail's header.
const maxTrail = 2 << 10

// trail writes the attempts as model@upstream;status-or-cause;milliseconds, the oldest
// left out where they do not fit.
func (r *request) trail() []byte {
	b := r.scratch[:0]
	for i := range r.attempts {
		b = r.attempts[i].appendTrail(b)
		for len(b) > maxTrail {
			b = b[:copy(b, b[bytes.IndexByte(b, ',')+1:])]
		}
	}
	r.scratch = b
	return b
}

func (a *attempt) appendTrail(b []byte) []byte {
	if len(b) > 0 {
		b = append(b, ',')
	}
	b = append(b, a.target.Model...)
	b = append(b, '@')
	b = append(b, a.target.Upstream.Name...)
	b = append(b, ';')
	if a.status != 0 && (!a.failed || a.cause == pool.StatusRefused || a.cause == pool.CredentialRefused || a.cause == pool.Redirected) {
		b = strconv.AppendInt(b, int64(a.status), 10)
	} else {
		b = append(b, a.cause.String()...)
	}
	b = append(b, ';')
	return strconv.AppendInt(b, a.took.Milliseconds(), 10)
}
