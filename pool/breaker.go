package pool

import (
	"sync"
	"sync/atomic"
	"time"
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

// rule is when a breaker opens, and for how long.
type rule struct {
	failures int  // in a row that open it
	ratio    bool // half of ratioAttempts or more open it as well
	pause    time.Duration
	longest  time.Duration // what the doubling pauses grow to
}

// vote is what an attempt says to a breaker.
type vote uint8

const (
	neither vote = iota
	success
	failure
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

// pausesFor is how long the pause under way still lasts.
func (b *breaker) pausesFor(now time.Duration) time.Duration {
	return max(0, time.Duration(b.until.Load())-now)
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

// leave tells the breaker how an attempt ended that began at a time, as the probe or not. turned
// says that the breaker has closed, or opened.
func (b *breaker) leave(now, began time.Duration, probe bool, v vote, r rule) (to BreakerState, turned bool) {
	switch {
	case probe && v == success:
		b.close(now)
		return Closed, true
	case probe && v == failure:
		b.open(now, 2*min(b.pause, max(r.longest, r.pause)/2))
		return Open, false // it was not closed before
	case probe:
		b.probing.Store(false) // the next request is the probe
	case b.until.Load() != 0 || int64(began) < b.closed.Load() || v == neither:
	case v == success:
		if b.row.Load() != 0 {
			b.row.Store(0)
		}
		if r.ratio {
			b.recent.add(now, tallyOne)
		}
	default:
		tooMany := r.ratio && b.tooMany(now)
		if b.row.Add(1) >= int64(r.failures) || tooMany {
			return Open, b.trip(now, r.pause)
		}
	}
	return Closed, false
}

// tooMany counts one more failure, and reports whether half of the last attempts failed.
func (b *breaker) tooMany(now time.Duration) bool {
	b.recent.add(now, tallySome)
	all, failed := b.recent.sum(now, atMost)
	return all >= ratioAttempts && 2*failed >= all
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
