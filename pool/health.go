package pool

import (
	"crypto/sha256"
	"sync/atomic"
	"time"
)

// health is what is known of a target. It belongs to the upstream and lives on through
// reloads that keep the target's upstream, model and name.
type health struct {
	inFlight atomic.Int64
	asked    atomic.Bool // from the first attempt on; until then no gauge shows it
	drained  *atomic.Bool
	breaker  breaker
	rests    atomic.Int64 // until when, after a 429 with Retry-After
	tried    atomic.Int64 // when that began, or a request was last sent all the same

	// credential is a second breaker, which opens when the target refuses the credential.
	credential breaker
	// sends is a digest of the credential that is in use. Adopt alone reads and writes it.
	sends [sha256.Size]byte
}

// healthKey tells the targets of an upstream apart.
type healthKey struct{ model, name string }

// credentialRule is when a target rests that refuses the credential.
var credentialRule = rule{failures: 3, pause: 30 * time.Second, longest: 10 * time.Minute}

// uses tells that the credential with that digest is in use. A refusal or a 429 of another one says
// nothing of it.
func (h *health) uses(now time.Duration, credential [sha256.Size]byte) {
	if h.sends != credential {
		h.sends = credential
		h.credential.close(now)
		h.rests.Store(0)
	}
}

// LongestRest bounds what an upstream can ask for.
const LongestRest = time.Hour

// tryResting is how often a target that rests is asked all the same, if nothing else serves. Its 429
// may have been for one client alone.
const tryResting = time.Second

func (h *health) resting(now time.Duration) time.Duration {
	return max(0, time.Duration(h.rests.Load())-now)
}

func (h *health) servesIn(now time.Duration) time.Duration {
	return max(h.resting(now), h.breaker.pausesFor(now), h.credential.pausesFor(now))
}

func (h *health) status(key healthKey, now time.Duration, drained bool) TargetStatus {
	state := h.breaker.state(now)
	return TargetStatus{
		Model: key.model, Target: key.name, Breaker: state.String(), breaker: state,
		CredentialRefused: h.credential.state(now) != Closed, Drained: drained || h.drained.Load(),
		InFlight: h.inFlight.Load(), ServesIn: h.servesIn(now).Seconds(),
	}
}

// serves reports whether a request may be sent to t now.
func (t *Target) serves(now time.Duration) bool { return t.healthy(now) && !t.Upstream.queue.Full() }

func (t *Target) healthy(now time.Duration) bool {
	h := t.health
	return !t.drainedNow() && h.resting(now) == 0 && h.breaker.state(now) != Open && h.credential.state(now) != Open
}

// Closed reports whether t's breaker is closed.
func (t *Target) Closed(now time.Duration) bool { return t.health.breaker.state(now) == Closed }

// Rests is how long t still rests after a 429.
func (t *Target) Rests(now time.Duration) time.Duration { return t.health.resting(now) }

// Rest has nothing sent to t for d.
func (t *Target) Rest(now, d time.Duration) {
	until := int64(now + min(d, LongestRest))
	t.health.tried.Store(int64(now))
	for {
		old := t.health.rests.Load()
		if old >= until || t.health.rests.CompareAndSwap(old, until) {
			return
		}
	}
}

// Place is an attempt's at a target, between Enter and Leave.
type Place struct {
	at    time.Duration // when it was taken
	probe bool          // the attempt decides whether an open breaker closes
	// checks: it decides whether a refused credential is accepted again.
	checks bool
	// rest is the end of the rest during which it was taken, 0 outside one.
	rest int64
}

// Enter takes a place at t for one attempt, if t serves. Every Enter that was ok is followed
// by one Leave.
func (t *Target) Enter(now time.Duration) (p Place, ok bool) {
	if !t.Upstream.queue.Enter() {
		return Place{}, false
	}
	return t.EnterAtTurn(now)
}

// EnterResting is Enter for a target that rests: one request in a second is let through.
func (t *Target) EnterResting(now time.Duration) (p Place, ok bool) {
	tried, rest := t.health.tried.Load(), t.health.rests.Load()
	if int64(now) < tried+int64(tryResting) || !t.Upstream.queue.Enter() {
		return Place{}, false
	}
	if p, ok = t.enterRegardless(now); !ok {
		t.Upstream.queue.Leave()
		return Place{}, false
	}
	if !t.health.tried.CompareAndSwap(tried, int64(now)) {
		t.Back(now, p)
		return Place{}, false
	}
	p.rest = rest
	return p, true
}

func (t *Target) enter(now time.Duration) (p Place, ok bool) {
	if t.Rests(now) > 0 {
		return Place{}, false
	}
	return t.enterRegardless(now)
}

// enterRegardless is enter for a target that may rest.
func (t *Target) enterRegardless(now time.Duration) (p Place, ok bool) {
	if t.drainedNow() {
		return Place{}, false
	}
	h := t.health
	p = Place{at: now}
	if p.probe, ok = h.breaker.enter(now); !ok {
		return Place{}, false
	}
	if p.checks, ok = h.credential.enter(now); !ok {
		if p.probe {
			h.breaker.probing.Store(false)
		}
		return Place{}, false
	}
	h.inFlight.Add(1)
	if !h.asked.Load() {
		t.Upstream.asked.Store(true)
		h.asked.Store(true)
	}
	return p, true
}

// Answered tells that the attempt at p has its answer, though perhaps not yet all of it: if it
// was a probe, nobody need wait for its end. The place goes on as that of any attempt.
func (t *Target) Answered(now time.Duration, p Place) Place {
	if !p.probe && !p.checks && p.rest == 0 {
		return p
	}
	t.report(now, p, Served)
	return Place{at: now}
}

// Leave gives the place back and tells how the attempt ended.
func (t *Target) Leave(now time.Duration, p Place, o Outcome) {
	t.Upstream.keeps(now - p.at)
	t.back(now, p, o)
}

// Back gives back a place that was not used.
func (t *Target) Back(now time.Duration, p Place) { t.back(now, p, Unknown) }

func (t *Target) back(now time.Duration, p Place, o Outcome) {
	t.health.inFlight.Add(-1)
	t.report(now, p, o)
	t.Upstream.queue.Leave()
}

func (t *Target) report(now time.Duration, p Place, o Outcome) {
	if p.rest != 0 && o == Served {
		t.health.rests.CompareAndSwap(p.rest, 0) // it serves, unless another 429 has come since
	}
	if to, turned := t.health.breaker.leave(now, p.at, p.probe, o.ofTarget(), t.rule); turned {
		t.Upstream.turned(t, to)
	}
	if to, turned := t.health.credential.leave(now, p.at, p.checks, o.ofCredential(), credentialRule); turned {
		t.Upstream.credentialTurned(t, to)
	}
}

// MayRetry reports whether Retry would charge a retry now.
func (u *Upstream) MayRetry(now time.Duration) bool { return u.counted(u.budget.left(now)) }

// Retry charges u's budget with a retry, or refuses it.
func (u *Upstream) Retry(now time.Duration) bool {
	ok := u.counted(u.budget.take(now))
	if ok {
		u.retries.Inc()
	}
	return ok
}

func (u *Upstream) counted(ok bool) bool {
	if !ok {
		u.refused.Inc()
	}
	return ok
}

// Status is what can be shown of the target now.
func (t *Target) Status() TargetStatus {
	return t.health.status(healthKey{t.Model, t.name}, t.Upstream.clock(), t.Upstream.drained.Load())
}

// TargetStatus is what is shown of a target.
type TargetStatus struct {
	Model   string `json:"model"`  // public
	Target  string `json:"target"` // the upstream's name for it
	Breaker string `json:"breaker"`
	// CredentialRefused: the target refused the gateway's credential, and nothing has been accepted since.
	CredentialRefused bool `json:"credential_refused"`
	// Drained: an operator has drained the target, or its upstream.
	Drained  bool  `json:"drained"`
	InFlight int64 `json:"in_flight"`
	// ServesIn is how long the target is still left alone, in seconds.
	ServesIn float64 `json:"serves_in_seconds"`
	breaker  BreakerState
}
