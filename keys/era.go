package keys

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/redis/rueidis"

	"sluice/limiter"
)

// sweep gives back what is left of leases that over says are over, and says what was spent without one.
func (l *leases) sweep(ctx context.Context, over func(*limiter.Lease) bool) {
	l.mu.Lock()
	all := make([]*share, 0, len(l.active))
	for s := range l.active {
		all = append(all, s)
	}
	l.mu.Unlock()
	for some := range slices.Chunk(all, batch) {
		if ctx.Err() != nil || l.silent(l.of.store.now()) {
			return
		}
		l.settle(ctx, some, over)
	}
}

// settle does that for some shares, in one round trip.
func (l *leases) settle(ctx context.Context, some []*share, over func(*limiter.Lease) bool) {
	ctx, cancel := context.WithTimeout(ctx, leaseWait)
	defer cancel()
	r := l.of
	type told struct {
		share *share
		window
		say  report
		term int64
	}
	var all []told
	var calls []rueidis.LuaExec
	for _, s := range some {
		l.mu.Lock()
		delete(l.active, s) // who has something to say after this notes it again
		l.mu.Unlock()
		if !s.quiet(over) {
			l.note(s)
			continue
		}
		s.mu.Lock()
		w := s.shape
		s.mu.Unlock()
		if say, era, term := s.reported(w); !say.empty() && w.period > 0 {
			all = append(all, told{s, w, say, term})
			calls = append(calls, rueidis.LuaExec{Keys: []string{s.name, redisEra}, Args: leaseArgs(era, w, 0, 0, r.nodes.Load(), say)})
		}
	}
	if len(calls) == 0 {
		return
	}
	var failed error
	for i, answer := range leaseScript.ExecMulti(ctx, r.client, calls...) {
		s := all[i].share
		got, err := answer.AsIntSlice()
		switch {
		case err != nil || len(got) != 4:
			s.unreported(all[i].window, all[i].say, all[i].term)
			failed = cmp.Or(err, errAnswer)
			continue
		case got[0] == otherEra:
			s.unreported(all[i].window, all[i].say, all[i].term)
			continue
		}
		s.free.Store(got[2])
		s.refused.Store(0)
	}
	if failed != nil { // said once: they failed together
		l.failed(failed)
	}
}

// quiet ends the lease if it is over, and reports whether there is none now.
func (s *share) quiet(over func(*limiter.Lease) bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	lease := s.lease.Load()
	if lease == nil {
		return true
	}
	if !over(lease) || !s.lease.CompareAndSwap(lease, nil) {
		return false
	}
	if left := s.ended(lease); left > 0 {
		s.want = max(1, s.got-left)
	}
	return true
}

// declareTime is how long a node may take to say what it has spent of a thousand keys.
const declareTime = 250 * time.Millisecond

// declare says in a new era what this node has spent within the last period of each key. Its leases of the
// era before hold no more. Called again after an error it goes on from where it was.
func (l *leases) declare(ctx context.Context, era string) error {
	r := l.of
	for some := range slices.Chunk(l.spendings(era), 2*batch) {
		ctx, cancel := context.WithTimeout(ctx, settleTime)
		calls := make([]rueidis.LuaExec, len(some))
		for i, one := range some {
			calls[i] = rueidis.LuaExec{Keys: []string{one.share.name, redisEra}, Args: leaseArgs(era, one.window, 0, 0, 1, report{extra: one.amount})}
		}
		var failed error
		for i, answer := range leaseScript.ExecMulti(ctx, r.client, calls...) {
			if err := answer.Error(); err != nil {
				failed = err
			} else {
				some[i].share.declared = era // only follow's goroutine looks at it
			}
		}
		cancel()
		if failed != nil {
			return failed
		}
	}
	return nil
}

// spendings are what this node has spent within the last period of each limit, but for what was declared in the era, which
// for each share begins here: what it spends from now on without a lease is said besides.
func (l *leases) spendings(era string) (all []spending) {
	now := l.of.store.now()
	l.of.store.byID.Range(func(_ string, k *Key) bool {
		for _, s := range k.shares() {
			if era != "" && s.declared != era {
				s.endEra()
			}
		}
		for _, one := range k.spent(now) {
			if one.amount > 0 && (era == "" || one.share.declared != era) {
				all = append(all, one)
			}
		}
		return true
	})
	return all
}

func (s *share) endEra() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if lease := s.lease.Swap(nil); lease != nil {
		lease.End()
	}
	s.say = report{}
	s.extra.Store(0)
	s.term.Add(1)
	s.refused.Store(0)
}
