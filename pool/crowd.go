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

// Crowded is the healthy target whose upstream has the fewest waiting, of those that may be
// waited for; nil without one.
func (m *Model) Crowded(now time.Duration) (crowded *Target) {
	for _, t := range m.Targets {
		// That it was full a moment ago is known; it may not be any more.
		if t.healthy(now) && t.Upstream.queue.Limit() > 0 &&
			(crowded == nil || t.Upstream.queue.Waiting() < crowded.Upstream.queue.Waiting()) {
			crowded = t
		}
	}
	return crowded
}

// Join has w wait for a place at t's upstream, in the line of key, for at most patience. It refuses
// at once if as many wait as may, or if the turn would not come in time, going by how long
// attempts have kept their places of late. retryAfter is when it would come, about.
func (t *Target) Join(w *limiter.Waiter, key any, patience time.Duration) (retryAfter time.Duration, joined bool) {
	q := &t.Upstream.queue
	each := t.Upstream.freesOneIn()
	most := math.MaxInt
	if each > 0 {
		most = int(min(patience/each, math.MaxInt32)) - 1 // besides who is before it, somebody has to leave for it
	}
	ahead, joined := q.Join(w, key, most, int(max(q.Limit(), leastQueue)))
	return turnIn(ahead, each), joined
}

// TurnIn is when a place will be free for who comes now, about.
func (t *Target) TurnIn() time.Duration {
	return turnIn(int(t.Upstream.queue.Waiting()), t.Upstream.freesOneIn())
}

// turnIn bounds what it foresees.
func turnIn(ahead int, each time.Duration) time.Duration {
	const most = time.Minute
	if each == 0 {
		return time.Second
	}
	return time.Duration(min(float64(ahead+1)*float64(each), float64(most)))
}

// freesOneIn is how often a place becomes free when all are taken; 0 if that is not known.
func (u *Upstream) freesOneIn() time.Duration {
	limit := u.queue.Limit()
	if limit == 0 {
		return 0
	}
	return time.Duration(u.took.Load() / limit)
}

// keeps takes into account that an attempt has kept its place for d.
func (u *Upstream) keeps(d time.Duration) {
	if u.queue.Limit() == 0 {
		return
	}
	const weight = 8 // of all before, against one
	for {
		old := u.took.Load()
		average := int64(d)
		if old > 0 {
			average = old + (int64(d)-old)/weight
		}
		if u.took.CompareAndSwap(old, max(1, average)) {
			return
		}
	}
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
