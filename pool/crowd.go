package pool

import (
	"math"
	"time"

	"sluice/limiter"
)

// An upstream with a max_in_flight holds that many attempts at once. Who finds all its targets'
// upstreams full may wait for a turn at one of them.

// leastQueue is how many may wait at an upstream however few it takes at once; otherwise as
// many as it takes.
const leastQueue = 16

// Crowded is the target that serves, but whose upstream is full, with the fewest waiting there;
// nil without one.
func (m *Model) Crowded(now time.Duration) (crowded *Target) {
	for _, t := range m.Targets {
		if t.healthy(now) && t.Upstream.queue.Full() &&
			(crowded == nil || t.Upstream.queue.Waiting() < crowded.Upstream.queue.Waiting()) {
			crowded = t
		}
	}
	return crowded
}

// Join has w wait for a place at t's upstream, in the line of key, for at most patience. It refuses
// at once if as many wait as may, or if the turn would not come in time at the rate at
// which places have become free of late. retryAfter is when it would, about.
func (t *Target) Join(now time.Duration, w *limiter.Waiter, key any, patience time.Duration) (retryAfter time.Duration, joined bool) {
	q := &t.Upstream.queue
	rate := t.Upstream.freed.rate(now)
	most := math.MaxInt
	if rate > 0 {
		most = int(min(rate*patience.Seconds(), math.MaxInt32)) - 1 // besides who is before it, somebody has to leave for it
	}
	ahead, joined := q.Join(w, key, most, int(max(q.Limit(), leastQueue)))
	return turnIn(ahead, rate), joined
}

// TurnIn is when a place will be free for who comes now, about.
func (t *Target) TurnIn(now time.Duration) time.Duration {
	return turnIn(int(t.Upstream.queue.Waiting()), t.Upstream.freed.rate(now))
}

// turnIn bounds what it foresees: rates change.
func turnIn(ahead int, rate float64) time.Duration {
	const most = time.Minute
	if rate == 0 {
		return time.Second
	}
	return time.Duration(min(float64(ahead+1)/rate*float64(time.Second), float64(most)))
}

// Quit takes w out of its line. True means that it had its turn before: EnterAtTurn follows.
func (t *Target) Quit(w *limiter.Waiter) (inside bool) { return t.Upstream.queue.Quit(w) }

// EnterAtTurn is Enter for who has had its turn. If t does not serve any more, the turn goes
// to the next.
func (t *Target) EnterAtTurn(now time.Duration) (Place, bool) {
	if p, ok := t.enter(now); ok {
		return p, true
	}
	t.Upstream.queue.Leave()
	return Place{}, false
}

// PassTurn gives a turn to the next.
func (t *Target) PassTurn() { t.Upstream.queue.Leave() }

// rate is how many a second there were in the last ten seconds.
func (t *tally) rate(now time.Duration) float64 {
	n, _ := t.sum(now, atMost)
	return float64(n) / (atMost * tallyWidth).Seconds()
}
