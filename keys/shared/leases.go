package shared

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"sluice/limiter"
)

// leases are the parts of keys' limits that this node may spend without asking.
type leases struct {
	of      *redis
	silence atomic.Int64 // until when nobody asks, on the clock of now

	mu     sync.Mutex
	active map[*share]struct{} // shares that have something to give back, or to report
}

// note has sweep look at s.
func (l *leases) note(s *share) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.active == nil {
		l.active = map[*share]struct{}{}
	}
	l.active[s] = struct{}{}
}

func (l *leases) unnote(s *share) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.active, s)
}

// afterFailure is how long nobody else asks when a lease was asked for in vain: each would wait as long.
const afterFailure = 100 * time.Millisecond

// failed notes that a lease was asked for in vain. Whether Redis is away the next beat will tell.
func (l *leases) failed(err error) {
	l.silence.Store(int64(l.of.now() + afterFailure))
	l.of.log.Warn("a lease was not answered", "error", err)
}

// silent reports whether it is of no use to ask now.
func (l *leases) silent(now time.Duration) bool {
	return l.of.away.Load() || now < time.Duration(l.silence.Load())
}

// sweep gives back what is left of leases that over says are over, and reports what was spent without one.
func (l *leases) sweep(ctx context.Context, over func(*limiter.Lease) bool) {
	l.mu.Lock()
	all := make([]*share, 0, len(l.active))
	for s := range l.active {
		all = append(all, s)
	}
	l.mu.Unlock()
	for some := range slices.Chunk(all, batch) {
		if ctx.Err() != nil || l.silent(l.of.now()) {
			return
		}
		l.tell(ctx, l.toTell(some, over))
	}
}

// told is a report on its way.
type told struct {
	share *share
	rule  limiter.Rule
	say   report
	era   string
	term  int64
}

// toTell takes the reports of the shares whose lease is over.
func (l *leases) toTell(some []*share, over func(*limiter.Lease) bool) (all []told) {
	for _, s := range some {
		l.unnote(s) // whoever has something to report after this notes it again
		if !s.endIfOver(over) {
			l.note(s)
			continue
		}
		s.mu.Lock()
		rule := s.shape
		s.mu.Unlock()
		if say, era, term := s.reported(rule); !say.empty() && rule.Period > 0 {
			all = append(all, told{s, rule, say, era, term})
		}
	}
	return all
}

// tell reports in one round trip.
func (l *leases) tell(ctx context.Context, all []told) {
	if len(all) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, leaseWait)
	defer cancel()
	calls := make([]rueidis.LuaExec, len(all))
	for i, one := range all {
		calls[i] = rueidis.LuaExec{Keys: []string{one.share.name, redisEra},
			Args: leaseArgs(one.era, one.rule, 0, 0, l.of.nodes.Load(), one.say)}
	}
	var failed error
	for i, answer := range leaseScript.ExecMulti(ctx, l.of.client, calls...) {
		one := &all[i]
		got, err := answer.AsIntSlice()
		switch {
		case err != nil || len(got) != 4:
			one.share.unreported(one.rule, one.say, one.term)
			failed = cmp.Or(err, errAnswer)
		case got[0] == otherEra:
			one.share.unreported(one.rule, one.say, one.term)
		default:
			one.share.free.Store(got[2])
			one.share.refused.Store(0)
		}
	}
	if failed != nil { // said once: they failed together
		l.failed(failed)
	}
}
