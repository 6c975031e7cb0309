package pool

import (
	"sync"
	"sync/atomic"
	"time"
)

// Outcome is what an attempt's end says of the target.
type Outcome uint8

// The outcomes.
const (
	// Unknown: the attempt was ended for reasons that are not the target's.
	Unknown Outcome = iota
	// Served: the target answered, if only with a refusal.
	Served
	// Failed: no connection, a time-out, a broken answer, or a server error.
	Failed
)

// BreakerState is what a breaker lets through.
type BreakerState int

// The states.
const (
	Closed   BreakerState = iota // everything
	HalfOpen                     // one probe
	Open                         // nothing
)

func (s BreakerState) String() string { return [...]string{"closed", "half_open", "open"}[s] }

const (
	// A breaker opens when half of this many or more attempts in ten seconds have failed.
	ratioAttempts = 20
	// longestPause is what the doubling pauses of an open breaker grow to.
	longestPause = 30 * time.Second
)

// breaker keeps requests from a target that fails. It opens after a row of failures, or when
// half of the attempts of the last ten seconds failed; after a pause one probe is let through,
// which closes it again or doubles the pause. Attempts that began before it closed say
// nothing any more. While it is closed, entering and leaving take no lock.
type breaker struct {
	until   atomic.Int64 // the end of the pause; 0 while closed
	closed  atomic.Int64 // when it closed
	probing atomic.Bool  // the probe is under way
	row     atomic.Int64 // failures since the last success
	recent  tally        // attempts, the failed ones apart

	mu    sync.Mutex    // one opening or closing at a time
	pause time.Duration // the one under way, or the last
}

// state is what may go now.
func (b *breaker) state(now time.Duration) BreakerState {
	until := b.until.Load()
	switch {
	case until == 0:
		return Closed
	case int64(now) >= until && !b.probing.Load():
		return HalfOpen
	}
	return Open
}

// enter reports whether one may go now, and whether it is the probe. It is followed by leave.
func (b *breaker) enter(now time.Duration) (probe, ok bool) {
	switch b.state(now) {
	case Closed:
		return false, true
	case Open:
		return false, false
	}
	if !b.probing.CompareAndSwap(false, true) {
		return false, false
	}
	// Another probe may have come and gone since the look at the state.
	if until := b.until.Load(); until == 0 || int64(now) < until {
		b.probing.Store(false)
		return false, until == 0
	}
	return true, true
}

// leave tells the breaker how an attempt ended. failures and pause are the configuration's.
// turned says that the breaker has closed, or opened.
func (b *breaker) leave(now time.Duration, p Place, o Outcome, failures int, pause time.Duration) (to BreakerState, turned bool) {
	switch {
	case p.probe && o == Served:
		b.close(now)
		return Closed, true
	case p.probe && o == Failed:
		b.open(now, 2*min(b.pause, max(longestPause, pause)/2))
		return Open, false // it was not closed before
	case p.probe:
		b.probing.Store(false) // the next request is the probe
	case b.until.Load() != 0 || int64(p.at) < b.closed.Load() || o == Unknown:
	case o == Served:
		if b.row.Load() != 0 {
			b.row.Store(0)
		}
		b.recent.add(now, tallyOne)
	default:
		b.recent.add(now, tallySome)
		inARow := b.row.Add(1)
		all, failed := b.recent.sum(now, atMost)
		if inARow >= int64(failures) || all >= ratioAttempts && 2*failed >= all {
			return Open, b.trip(now, pause)
		}
	}
	return Closed, false
}

// trip opens a closed breaker. False: another attempt has done so.
func (b *breaker) trip(now, pause time.Duration) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.until.Load() != 0 {
		return false
	}
	b.pause = pause
	b.until.Store(int64(now + pause))
	return true
}

// open begins another pause after a probe that failed.
func (b *breaker) open(now, pause time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pause = pause
	b.until.Store(int64(now + pause))
	b.probing.Store(false)
}

// close begins anew: what failed before counts no more.
func (b *breaker) close(now time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed.Store(int64(now))
	b.row.Store(0)
	b.recent.clear()
	b.until.Store(0)
	b.probing.Store(false)
}
