package pool

import (
	"math"
	"math/rand/v2"
	"time"
)

// Never is the rank of a target that is not to be picked.
const Never = math.MaxInt

// Pick chooses a target to send a request to, nil if none serves. Of those that serve, the
// ones with the lowest rank are considered (a nil rank is 0 for all). Two draws by weight
// are made among them, and the one with fewer requests in flight for its weight is taken: the
// power of two choices (Mitzenmacher, 2001), which needs no view of all targets and does not
// send everybody to the one that was idle a moment ago.
func (m *Model) Pick(now time.Duration, rank func(*Target) int) *Target {
	if len(m.Targets) == 1 {
		if t := m.Targets[0]; t.serves(now) && rankOf(t, rank) != Never {
			return t
		}
		return nil
	}
	lowest, weight := Never, 0
	for _, t := range m.Targets {
		if !t.serves(now) {
			continue
		}
		switch r := rankOf(t, rank); {
		case r < lowest:
			lowest, weight = r, t.Weight
		case r == lowest && r != Never:
			weight += t.Weight
		}
	}
	if weight == 0 {
		return nil
	}
	a, b := m.draw(now, rank, lowest, weight), m.draw(now, rank, lowest, weight)
	if a == nil || b != nil && b.load()*int64(a.Weight) < a.load()*int64(b.Weight) {
		return b
	}
	return a
}

// draw chooses by weight among the targets that serve and have the rank. weight is their sum;
// should one have stopped serving meanwhile, the last of the others takes its part.
func (m *Model) draw(now time.Duration, rank func(*Target) int, of, weight int) (drawn *Target) {
	n := rand.IntN(weight)
	for _, t := range m.Targets {
		if !t.serves(now) || rankOf(t, rank) != of {
			continue
		}
		drawn = t
		if n -= t.Weight; n < 0 {
			break
		}
	}
	return drawn
}

func rankOf(t *Target, rank func(*Target) int) int {
	if rank == nil {
		return 0
	}
	return rank(t)
}

func (t *Target) load() int64 { return t.health.inFlight.Load() }

// Rested is the target that soonest ends a rest after a 429, of those that nothing else keeps from serving
// and that may be asked; nil without one.
func (m *Model) Rested(now time.Duration, may func(*Target) bool) (soonest *Target) {
	for _, t := range m.Targets {
		if t.restsOnly(now) && may(t) && (soonest == nil || t.Rests(now) < soonest.Rests(now)) {
			soonest = t
		}
	}
	return soonest
}

// Resting is the target that soonest ends a rest after a 429, of those that nothing else keeps from
// serving and that may be asked all the same now; nil without one.
func (m *Model) Resting(now time.Duration) (soonest *Target) {
	for _, t := range m.Targets {
		h := t.health
		if t.drainedNow() || h.resting(now) == 0 || int64(now) < h.tried.Load()+int64(tryResting) || t.Upstream.queue.Full() ||
			h.breaker.state(now) == Open || h.credential.state(now) == Open {
			continue
		}
		if soonest == nil || t.Rests(now) < soonest.Rests(now) {
			soonest = t
		}
	}
	return soonest
}

// restsOnly reports whether nothing but a rest after a 429, if that, keeps t from serving.
func (t *Target) restsOnly(now time.Duration) bool {
	return !t.drainedNow() && t.Closed(now) && t.health.credential.state(now) == Closed
}

// ServesIn is how long until one of the model's targets that are not drained serves again, as far as can be
// known.
func (m *Model) ServesIn(now time.Duration) time.Duration {
	soonest := time.Duration(math.MaxInt64)
	for _, t := range m.Targets {
		if !t.drainedNow() {
			soonest = min(soonest, t.health.servesIn(now))
		}
	}
	return soonest
}

// Reasons are why targets do not serve.
type Reasons struct{ Open, Resting, CredentialRefused, Drained bool }

// Add adds those of other.
func (r *Reasons) Add(other Reasons) {
	r.Open = r.Open || other.Open
	r.Resting = r.Resting || other.Resting
	r.CredentialRefused = r.CredentialRefused || other.CredentialRefused
	r.Drained = r.Drained || other.Drained
}

// Reasons are those of the model's targets. A target that is drained has no other.
func (m *Model) Reasons(now time.Duration) (why Reasons) {
	for _, t := range m.Targets {
		if t.drainedNow() {
			why.Drained = true
			continue
		}
		why.Add(Reasons{
			Open:              t.health.breaker.state(now) == Open,
			Resting:           t.Rests(now) > 0,
			CredentialRefused: t.health.credential.state(now) == Open,
		})
	}
	return why
}
