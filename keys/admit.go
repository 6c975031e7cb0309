package keys

import (
	"encoding/hex"
	"sync/atomic"
	"time"

	"sluice/limiter"
)

// Key is a gateway key in memory, the same for as long as the process knows the id.
type Key struct {
	// Gate bounds how many requests of the key are in flight.
	Gate limiter.Gate

	spec   atomic.Pointer[Spec]
	window atomic.Pointer[limiter.Window] // nil without a limit
	tokens atomic.Pointer[limiter.Ledger] // the same

	// Where several nodes count together, what this one may spend of what all may; the windows then
	// have what it has spent itself. Nil elsewhere; set once, before anybody has the key.
	ofRequests, ofTokens *share

	hash Hash // these two guarded by Store.mu
	rev  uint64
}

// Spec is what is known of the key now.
func (k *Key) Spec() *Spec { return k.spec.Load() }

// Admit asks the key's window for one request. limited is false for a key without
// such a limit, which is always admitted. A refusal whose state is Uncounted is not the limit's.
func (k *Key) Admit(now time.Duration) (state limiter.State, admitted, limited bool) {
	share := k.ofRequests
	if share == nil {
		return k.allow(now, limiter.MaxLimit)
	}
	w, limited := k.limitOf(k.Spec().Limits.Requests)
	if !limited {
		return limiter.State{}, true, false
	}
	t, lease, retry := share.take(w, 1)
	switch t {
	case granted:
		if state, admitted, limited = k.allow(now, limiter.MaxLimit); !admitted {
			share.give(lease, 1)
		}
		state.Remaining = min(state.Remaining, share.left())
		return state, admitted, limited
	case alone:
		if state, admitted, limited = k.allow(now, share.nodePart(w)); admitted {
			share.overspent(w, 1)
			return state, admitted, limited
		}
		return refusedByItself(state, 1), false, limited
	}
	state, _ = k.Left(now)
	state.Remaining, state.RetryAfter, state.Uncounted = 0, retry, t == uncounted
	return state, false, true
}

// allow is the node's own window.
func (k *Key) allow(now time.Duration, limit int64) (state limiter.State, admitted, limited bool) {
	for {
		w := k.window.Load()
		if w == nil {
			return limiter.State{}, true, false
		}
		// A frozen window has a successor, or is about to.
		if state, ok, err := w.AllowWithin(now, limit); err == nil {
			return state, ok, true
		}
	}
}

// limitOf is one of the key's limits with its period.
func (k *Key) limitOf(limit *int64) (window, bool) {
	period := k.Spec().Limits.Period
	if limit == nil || period == nil {
		return window{}, false
	}
	return window{time.Duration(*period), *limit}, true
}

func (k *Key) shares() (all []*share) {
	for _, s := range [...]*share{k.ofRequests, k.ofTokens} {
		if s != nil {
			all = append(all, s)
		}
	}
	return all
}

// spending is what a node has spent of a limit within the last period.
type spending struct {
	share *share
	window
	amount int64
}

func (k *Key) spent(now time.Duration) (all []spending) {
	if w, limited := k.limitOf(k.Spec().Limits.Requests); limited && k.ofRequests != nil {
		if own := k.window.Load(); own != nil {
			if state, err := own.Peek(now); err == nil {
				all = append(all, spending{k.ofRequests, w, state.Limit - state.Remaining})
			}
		}
	}
	if w, limited := k.limitOf(k.Spec().Limits.Tokens); limited && k.ofTokens != nil {
		if own := k.tokens.Load(); own != nil {
			state, _ := own.Peek(now, 0)
			all = append(all, spending{k.ofTokens, w, state.Limit - state.Remaining})
		}
	}
	return all
}

// record is the key as it is kept.
func (k *Key) record() *record { return &record{Spec: *k.Spec(), Hash: hex.EncodeToString(k.hash[:])} }

// Left says what Admit would find, without admitting.
func (k *Key) Left(now time.Duration) (state limiter.State, limited bool) {
	for {
		w := k.window.Load()
		if w == nil {
			return limiter.State{}, false
		}
		of, _ := k.limitOf(k.Spec().Limits.Requests)
		part, byItself := k.ofRequests.within(of, now)
		switch state, err := w.PeekWithin(now, part); {
		case err != nil:
		case byItself:
			return refusedByItself(state, 1), true
		default:
			return k.ofRequests.adjust(state, now), true
		}
	}
}

// CountsTokens reports whether the key has a limit on tokens.
func (k *Key) CountsTokens() bool { return k.tokens.Load() != nil }

// Charge is what a request was charged of its key's tokens, to be settled.
type Charge struct {
	own   limiter.Charge
	share *share
	lease *limiter.Lease // nil if it was charged while nobody counted for all nodes; of that are:
	of    window
	term  int64
}

// Reserved is the amount that was charged.
func (c *Charge) Reserved() int64 { return c.own.Reserved() }

// Settle makes actual of what was reserved. The Charge is empty after it.
func (c *Charge) Settle(now time.Duration, actual int64) {
	more := max(0, actual) - c.own.Reserved()
	c.own.Settle(now, actual)
	switch s := c.share; {
	case s == nil:
	case c.lease == nil && c.term == s.term.Load():
		s.overspent(c.of, actual) // else the reservation was declared since
	case more > 0:
		s.overspent(c.of, more)
	default:
		s.give(c.lease, -more)
	}
	*c = Charge{}
}

// Reserve charges the key's tokens with what a request may use. limited is false for a key
// without such a limit. A refusal whose state is Uncounted is not the limit's.
func (k *Key) Reserve(now time.Duration, tokens int64) (c Charge, state limiter.State, admitted, limited bool) {
	l, share := k.tokens.Load(), k.ofTokens
	w, there := k.limitOf(k.Spec().Limits.Tokens)
	switch {
	case l == nil:
		return Charge{}, limiter.State{}, true, false
	case share == nil || !there:
		c.own, state, admitted = l.Reserve(now, tokens)
		return c, state, admitted, true
	}
	tokens = min(tokens, w.limit)
	t, lease, retry := share.take(w, tokens)
	switch t {
	case granted:
		if c.own, state, admitted = l.Reserve(now, tokens); !admitted {
			share.give(lease, tokens)
			return Charge{}, state, false, true
		}
		state.Remaining = min(state.Remaining, share.left())
	case alone:
		if c.own, state, admitted = l.ReserveWithin(now, tokens, share.nodePart(w)); !admitted {
			return Charge{}, refusedByItself(state, tokens), false, true
		}
	default:
		state, _ = l.Peek(now, tokens)
		state.Remaining, state.RetryAfter, state.Uncounted = 0, retry, t == uncounted
		return Charge{}, state, false, true
	}
	c.share, c.lease, c.of, c.term = share, lease, w, share.term.Load()
	return c, state, true, true
}

// Unsettled is how many charges of the key's tokens are to be settled.
func (k *Key) Unsettled() int64 {
	l := k.tokens.Load()
	if l == nil {
		return 0
	}
	return l.Open()
}

// LeftTokens says what Reserve would find, without charging.
func (k *Key) LeftTokens(now time.Duration, tokens int64) (state limiter.State, admitted, limited bool) {
	l := k.tokens.Load()
	if l == nil {
		return limiter.State{}, true, false
	}
	of, _ := k.limitOf(k.Spec().Limits.Tokens)
	part, byItself := k.ofTokens.within(of, now)
	if state, admitted = l.PeekWithin(now, tokens, part); byItself {
		return refusedByItself(state, min(tokens, of.limit)), admitted, true
	}
	state = k.ofTokens.adjust(state, now)
	return state, admitted && (tokens == 0 || state.Remaining > 0), true
}

// Used is how much of its windows the key has used, nil where it has no limit.
func (k *Key) Used(now time.Duration) (requests, tokens *int64) {
	used := func(s limiter.State) *int64 {
		n := s.Limit - s.Remaining
		return &n
	}
	if s, limited := k.Left(now); limited {
		requests = used(s)
	}
	if s, _, limited := k.LeftTokens(now, 0); limited {
		tokens = used(s)
	}
	return requests, tokens
}

// lend has the key count together with other nodes from now on. It is called before set.
func (k *Key) lend(l *leases, id string) {
	k.ofRequests = l.share(ofRequests, id)
	k.ofTokens = l.share(ofTokens, id)
}

// set makes spec take effect. What the window has counted stays counted: a window of
// another period begins with it as used just now.
func (k *Key) set(spec *Spec, now time.Duration) {
	k.spec.Store(spec)
	concurrent := int64(0)
	if spec.Limits.Concurrent != nil {
		concurrent = *spec.Limits.Concurrent
	}
	k.Gate.SetLimit(concurrent)

	switch l := k.tokens.Load(); {
	case spec.Limits.Tokens == nil:
		k.tokens.Store(nil)
	case l == nil:
		k.tokens.Store(limiter.NewLedger(*spec.Limits.Tokens, time.Duration(*spec.Limits.Period), now))
	default:
		l.Set(*spec.Limits.Tokens, time.Duration(*spec.Limits.Period), now)
	}

	old := k.window.Load()
	if spec.Limits.Requests == nil {
		k.window.Store(nil)
		return
	}
	limit, period := *spec.Limits.Requests, time.Duration(*spec.Limits.Period)
	switch {
	case old == nil:
		k.window.Store(limiter.NewWindow(limit, period, now, 0))
	case old.Period() == period:
		old.SetLimit(limit)
	default:
		used, from := old.Freeze(now)
		k.window.Store(limiter.NewWindow(limit, period, from, used))
	}
}
