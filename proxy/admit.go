package proxy

import (
	"fmt"
	"time"

	"sluice/keys"
	"sluice/limiter"
)

// enter takes a place among all requests and one among the key's.
func (r *request) enter() *failure {
	if !r.proxy.gate.Enter() {
		f := refusal(overloaded, "", "the gateway is at limits.in_flight (%d requests); try again", r.proxy.gate.Limit())
		f.retryAfter = time.Second
		return f
	}
	r.inGate = true
	if !r.key.Gate.Enter() {
		f := refusal(rateLimitExceeded, "", "the key is at its limit of %d concurrent requests (limits.concurrent)", r.key.Gate.Limit())
		f.retryAfter = time.Second
		return f
	}
	r.inKeyGate = true
	return nil
}

// admit charges the key's meters with the request. Nothing after it but the forwarding can fail, so
// what is charged was forwarded.
func (r *request) admit() *failure {
	return r.overLimit(r.key.Reserve(r.proxy.clock(), r, &r.reservation))
}

// wouldRefuse is what admit would refuse with now. It charges nothing.
func (r *request) wouldRefuse() *failure {
	return r.overLimit(r.key.Peek(r.proxy.clock(), r, &r.reservation))
}

// settle makes of the reservation what the request has used.
func (r *request) settle() {
	if r.key != nil {
		r.reservation.Settle(r.proxy.clock(), r)
	}
}

// overLimit is the failure of a request for which one of the key's meters has no room; nil without one.
func (r *request) overLimit(refused *keys.Entry) *failure {
	if refused == nil {
		return nil
	}
	state, name, rule := &refused.State, refused.Name(), refused.Rule()
	if state.Uncounted {
		return uncounted(state)
	}
	f := refusal(rateLimitExceeded, "", "the key is at %s %s per %s (limits.%s)%s; try again in %s",
		limitOrShare(state, rule.Limit), name, rule.Period, name, refused.Note(r), state.RetryAfter.Round(time.Millisecond))
	f.retryAfter = state.RetryAfter
	return f
}

// limitOrShare names what is used up: the limit, or this node's share of it while nobody counts for all nodes.
func limitOrShare(state *limiter.State, limit int64) string {
	if state.Limit >= limit {
		return fmt.Sprintf("its limit of %d", state.Limit)
	}
	return fmt.Sprintf("this node's share, %d, of its limit of %d", state.Limit, limit)
}

// uncounted is for a key of which nobody knows what other nodes have spent.
func uncounted(state *limiter.State) *failure {
	f := refusal(overloaded, "", "the key's limits cannot be counted now: the store that the gateway's nodes share does not answer, or has just begun to count anew; try again in %s",
		max(time.Second, state.RetryAfter.Round(time.Second)))
	f.retryAfter = max(time.Second, min(state.RetryAfter, 5*time.Second)) // it may answer again before
	return f
}
