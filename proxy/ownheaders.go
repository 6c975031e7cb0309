package proxy

import (
	"strconv"
	"strings"
	"time"

	"sluice/keys"
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
)

// limitHeader has the names of what is said of one of the key's limits.
type limitHeader struct{ limit, remaining, reset []byte }

// limitHeaders are those of keys.MeterNames, as OpenAI calls them.
var limitHeaders = func() (all []limitHeader) {
	for _, name := range keys.MeterNames() {
		of := func(what string) []byte {
			return []byte("X-Ratelimit-" + what + "-" + strings.ToUpper(name[:1]) + name[1:])
		}
		all = append(all, limitHeader{of("Limit"), of("Remaining"), of("Reset")})
	}
	return all
}()

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
	if r.key != nil {
		r.setLimits()
	}
}

// setLimits shows what is left of the key's limits, also where nothing was charged.
func (r *request) setLimits() {
	meters, now := r.key.Meters(), r.proxy.clock()
	for i := range meters {
		if state, limited := r.reservation.Left(&meters[i], now); limited {
			h := &limitHeaders[i]
			r.setNumber(h.limit, state.Limit)
			r.setNumber(h.remaining, state.Remaining)
			r.scratch = appendDuration(r.scratch[:0], state.Reset)
			r.ctx.Response.Header.SetCanonical(h.reset, r.scratch)
		}
	}
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

// trail writes the attempts as model@upstream;status-or-cause;milliseconds, the oldest
// left out where they do not fit.
func (r *request) trail() []byte {
	b := r.scratch[:0]
	for i := range r.attempts {
		a := r.attempts[i].told(r.began)
		b = a.AppendTrail(b)
	}
	r.scratch = b
	return b
}
