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
func (g *Gate) Enter() bool { return g.Take(1) }

// Leave gives a place back.
func (g *Gate) Leave() { g.Give(1) }

// Take takes n places at once, or none.
func (g *Gate) Take(n int64) bool {
	for {
		limit, inside := g.limit.Load(), g.n.Load()
		if limit > 0 && n > limit-inside {
			return false
		}
		if g.n.CompareAndSwap(inside, inside+n) {
			return true
		}
	}
}

// Add takes n places, beyond the limit if there are no others.
func (g *Gate) Add(n int64) { g.n.Add(n) }

// Give gives n places back.
func (g *Gate) Give(n int64) {
	if g.n.Add(-n) < 0 {
		panic("BUG: more left a gate than entered it")
	}
}

// InFlight is how many are inside now.
func (g *Gate) InFlight() int64 { return g.n.Load() }
