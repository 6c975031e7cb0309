package proxy

import (
	"net/netip"
	"time"

	"github.com/valyala/fasthttp"

	"sluice/record"
)

// record records the request, unless it was about health. Texts are borrowed until Tell returns.
func (r *request) record(took time.Duration, kind string) {
	if r.probe {
		return
	}
	t := &r.told
	*t = record.Request{
		Began: r.began, Took: took, FirstByte: r.headAfter, Overhead: r.overhead(took), Status: r.status, Error: kind,
		Stream: r.stream, ID: borrowString(r.id), Method: borrowString(r.method), Path: borrowString(r.path),
		Client: r.clientAddr(), BytesIn: r.bytesIn, BytesOut: r.bytesOut, Attempts: r.steps[:0],
	}
	if u := r.tokens.usage; u.known() {
		t.HasTokens, t.TokensIn, t.TokensOut = true, u.input, u.output
	}
	if r.key != nil {
		spec := r.key.Spec()
		t.Key, t.KeyName = spec.ID, spec.Name
	}
	if n := len(r.attempts); n > 0 {
		last := r.attempts[n-1].target
		t.Model, t.Upstream, t.UpstreamID = last.Model, last.Upstream.Name, borrowString(r.upstreamID)
		for i := range r.attempts {
			t.Attempts = append(t.Attempts, r.attempts[i].told(r.began))
		}
		r.steps, t.Tried = t.Attempts, n
	} else if len(r.models) > 0 {
		t.Model = r.models[0].Name
	}
	if f := r.failure; f != nil {
		t.Message = f.message
		if f.cause != nil {
			t.Cause = f.cause.Error()
		}
	}
	r.line = r.proxy.recorder.Tell(t, float64(r.snapshot.config.AccessLog), r.line)
	clear(r.steps)
	*t = record.Request{}
}

// told is what is told of the attempt of a request that began at a time.
func (a *attempt) told(began time.Time) record.Attempt {
	t := record.Attempt{Model: a.target.Model, Upstream: a.target.Upstream.Name, Target: a.target.TargetName(), Status: a.status,
		After: a.began.Sub(began), Connect: a.connect, Took: a.took}
	if a.failed {
		t.Cause, t.Ended = a.cause.String(), a.cause.Ended()
	}
	t.ShowsStatus = a.status != 0 && (!a.failed || causeRules[a.cause].showsStatus)
	return t
}

// clientAddr is the client's address; without a port where a trusted proxy told it.
func (r *request) clientAddr() netip.AddrPort {
	if r.from.IsValid() {
		return netip.AddrPortFrom(r.from, 0)
	}
	return r.conn.Peer()
}

// overhead is the gateway's own part of the time up to the answer's head: what is left without the
// attempts, the waits between them and for a turn, and the client's sending of its body.
func (r *request) overhead(took time.Duration) time.Duration {
	own := took
	if r.headAfter > 0 {
		own = r.headAfter
	}
	for i := range r.attempts {
		own -= r.attempts[i].took
	}
	return max(0, own-r.waited)
}

// The faults that are no failure of the gateway's own table.
const (
	faultLeft     = "caller_left"
	faultRejected = "caller_rejected"
	faultStatus   = "upstream_status"
)

// errorKind says whose fault it is that a request did not get a whole answer with a status of
// success, and what it was; "" for one that did.
func (r *request) errorKind() string {
	n := len(r.attempts)
	switch f := r.failure; {
	case f != nil && f.left:
		return faultLeft
	case f != nil && !f.ownStatus:
		return kindTable[f.kind].fault
	case n == 0:
		return ""
	case r.attempts[n-1].status == fasthttp.StatusNotModified: // which the client has asked for
	case r.attempts[n-1].status/100 == 4 && !retryable(r.attempts[n-1].status):
		return faultRejected
	case r.attempts[n-1].status/100 != 2:
		return faultStatus
	case r.left:
		return faultLeft
	}
	return ""
}
