package limiter

import "sync/atomic"

// Gate bounds what is in flight. Its zero value bounds nothing and only counts.
type Gate struct {
	limit atomic.Int64
	n     atomic.Int64
}

// SetLimit changes how many may be inside at once; 0 is no limit. Whoever is
// inside stays.
func (g *Gate) SetLimit(limit int64) { g.limit.Store(limit) }

// Limit is how many may be inside at once; 0 is no limit.
func (g *Gate) Limit() int64 { return g.limit.Load() }

// Enter takes a place, or reports that there is none. There are never more inside
// than the limit, not even for a moment. Each Enter that succeeds is followed by
// one Leave.
func (g *Gate) Enter() bool {
	for {
		limit, n := g.limit.Load(), g.n.Load()
		if limit > 0 && n >= limit {
			return false
		}
		if g.n.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// Leave gives a place back.
func (g *Gate) Leave() {
	if g.n.Add(-1) < 0 {
		panic("BUG: more left a gate than entered it")
	}
}

// InFlight is how many are inside now.
func (g *Gate) InFlight() int64 { return g.n.Load() }
