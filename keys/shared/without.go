package shared

import (
	"math"
	"sync/atomic"
	"time"

	"sluice/limiter"
)

// While Redis does not answer, and until a new era opens, nobody counts what all nodes spend. Two rules say what a
// node without a lease does then. Share: it admits its part of the limit, less what it has itself spent within the
// period. Strict: it admits nothing until what the others may have spent is older than the period, and its part after
// that. docs/scale.md tells how much either can admit at most.

// rules are the names of the two, by whether the rule is strict.
var rules = map[bool]string{false: "share", true: "strict"}

// soonAgain is how long a client waits at most that is refused what the limit may still have: Redis may answer before.
const soonAgain = 5 * time.Second

// HoldStrictly implements keys.SharedKeeper.
func (r *redis) HoldStrictly(strict bool) { r.strict.Store(strict) }

// rule says in words what the one that was chosen does.
func (r *redis) rule() string {
	if r.strict.Load() {
		return "requests of keys with a limit get 503 for the limit's period, but for what is left of leases"
	}
	return "each node admits its share of each limit"
}

// roster is how many nodes a limit is divided by while nobody counts. It errs towards more nodes and smaller parts: nodes
// that come back after an outage are not all heard of at once.
type roster struct {
	most   atomic.Int64  // nodes heard of within pace.missed
	mostAt time.Duration // when there were as many; only beat looks at it
	left   atomic.Int64  // when a node last went that had perhaps spent something, on the store's clock
}

// never is long before the store's clock began.
const never = math.MinInt64 / 2

// hear takes a beat's answer; left is how long ago a node went, below zero if none has. broken is whether nodes may have
// had no way to say that they live until just now.
func (o *roster) hear(now time.Duration, nodes int64, left time.Duration, broken bool, missed time.Duration) {
	if left >= 0 {
		o.left.Store(max(o.left.Load(), int64(now-left)))
	}
	if broken {
		o.mostAt = now
	}
	if nodes = max(1, nodes); nodes >= o.most.Load() || now-o.mostAt > missed {
		o.most.Store(nodes)
		o.mostAt = now
	}
}

// nodePart is this node's part of w while nobody counts, rounded down. The parts together are the limit at most; less than
// it if a node has gone within the period, as nobody is left to remember what that one has spent.
func (s *share) nodePart(w limiter.Rule) int64 {
	r, limit := s.of.of, w.Limit
	if !r.strict.Load() && r.now()-time.Duration(r.roster.left.Load()) <= w.Period {
		limit--
	}
	return limit / r.roster.most.Load()
}

// takeUncounted is take where Redis has said nothing. retry is what is said if nothing more is known.
func (s *share) takeUncounted(w limiter.Rule, retry time.Duration) (taken, time.Duration) {
	if wait := s.strictWait(w.Period, retry); wait > 0 {
		return uncounted, wait
	}
	return alone, 0
}

// strictWait is how long nothing may be spent without a lease, if the rule is strict.
func (s *share) strictWait(period, unopened time.Duration) time.Duration {
	r := s.of.of
	switch {
	case !r.strict.Load():
		return 0
	case !r.away.Load():
		return max(unopened, 1)
	}
	// Since it was noticed, not since it was last heard of: it may have given leases in between. And not before
	// this node takes itself for cut off, or nobody would ask what it has spent.
	return time.Duration(r.lostAt.Load()) + max(period+leaseTime(period), r.pace.cutOff) - r.now()
}

// within is what this node may have spent of w at now if nobody counts for all nodes, and whether that is so.
func (s *share) within(w limiter.Rule, now time.Duration) (part int64, byItself bool) {
	switch {
	case !s.of.silent(now) && !(s.unknown.Load() && now < time.Duration(s.refused.Load())),
		s.strictWait(w.Period, afterFailure) > 0:
		return limiter.MaxLimit, false
	}
	return s.nodePart(w), true
}

// refusedByItself is what a client is told that wants amount of what state is of, which is this node's part.
func refusedByItself(state limiter.State, amount int64) limiter.State {
	state.RetryAfter = min(state.RetryAfter, soonAgain)
	if amount > state.Limit {
		state.Remaining, state.RetryAfter, state.Uncounted = 0, soonAgain, true
	}
	return state
}
