package shared

import (
	"context"
	"slices"
	"time"

	"github.com/redis/rueidis"

	"sluice/limiter"
)

// declareTime is how long a node may take to declare what it has spent of a thousand keys.
const declareTime = 250 * time.Millisecond

// declare tells Redis in a new era what this node has spent within the last period of each key. Its
// leases of the era before hold no more. Called again after an error it goes on from where it was.
func (r *redis) declare(ctx context.Context, era string) error {
	for some := range slices.Chunk(r.spendings(era), 2*batch) {
		if err := r.declareSome(ctx, era, some); err != nil {
			return err
		}
	}
	return nil
}

func (r *redis) declareSome(ctx context.Context, era string, some []spending) (failed error) {
	ctx, cancel := context.WithTimeout(ctx, r.pace.settle)
	defer cancel()
	calls := make([]rueidis.LuaExec, len(some))
	for i, one := range some {
		calls[i] = rueidis.LuaExec{Keys: []string{one.share.name, redisEra},
			Args: leaseArgs(era, one.Rule, 0, 0, 1, report{extra: one.amount})}
	}
	for i, answer := range leaseScript.ExecMulti(ctx, r.client, calls...) {
		if err := answer.Error(); err != nil {
			failed = err
		} else {
			some[i].share.declared = era // only follow's goroutine looks at it
		}
	}
	return failed
}

// spending is what this node has spent of a limit within the last period.
type spending struct {
	share *share
	limiter.Rule
	amount int64
}

// spendings are what this node has spent within the last period of each limit, but for what was
// declared in the era. For each share the era begins here: what it spends from now on without a
// lease is reported besides. No era is none that begins.
func (r *redis) spendings(era string) (all []spending) {
	now := r.now()
	for k := range r.store.All() {
		for i := range k.Meters() {
			m := &k.Meters()[i]
			s := m.Share().(*share)
			if era != "" && s.declared == era {
				continue
			}
			if era != "" {
				s.endEra()
			}
			if rule, used, limited := m.Own(now); limited && used > 0 {
				all = append(all, spending{s, rule, used})
			}
		}
	}
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
