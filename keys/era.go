package keys

import (
	"context"
	"time"

	"github.com/redis/rueidis"

	"sluice/limiter"
)

// sweep gives back what is left of leases that are over, and says what was spent without one.
func (l *leases) sweep(ctx context.Context) {
	now := l.of.store.now()
	for _, s := range l.list() {
		if ctx.Err() != nil || l.silent(l.of.store.now()) {
			return
		}
		s.settle(ctx, func(lease *limiter.Lease) bool { return lease.Over(now) })
	}
}

// settle gives back what is over, and forgets s if nothing is left to be said of it.
func (s *share) settle(ctx context.Context, over func(*limiter.Lease) bool) {
	ctx, cancel := context.WithTimeout(ctx, leaseWait)
	defer cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	lease := s.lease.Load()
	if lease != nil && !over(lease) {
		return
	}
	if lease != nil {
		if left := lease.End(); left > 0 {
			s.comesBack(lease, left)
			s.want = max(1, s.got-left)
		}
		s.lease.Store(nil)
	}
	if len(s.back) > 0 || s.extra > 0 {
		answer, err := s.send(ctx, s.shape, 0, 0)
		if err != nil {
			s.of.failed(err)
			return
		}
		s.free.Store(answer[2])
		s.refused.Store(0)
	}
	s.of.mu.Lock()
	delete(s.of.active, s)
	s.of.mu.Unlock()
}

// giveAllBack is for the end of the process.
func (l *leases) giveAllBack() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for _, s := range l.list() {
		if l.of.away.Load() {
			return
		}
		s.settle(ctx, func(*limiter.Lease) bool { return true })
	}
}

// declare says in a new era what this node has spent within the last period of each key. Its leases of the
// era before hold no more.
func (l *leases) declare(ctx context.Context, era string) error {
	l.declaring.Store(true)
	defer l.declaring.Store(false)
	r := l.of
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	var all []rueidis.LuaExec
	r.store.byID.Range(func(_ string, k *Key) bool {
		for _, s := range k.shares() {
			s.endEra()
		}
		for _, spent := range k.spent(r.store.now()) {
			if spent.amount > 0 {
				all = append(all, rueidis.LuaExec{Keys: []string{spent.share.name, redisEra}, Args: leaseArgs(era, spent.window, 0, 0, 1, spent.amount)})
			}
		}
		return true
	})
	if len(all) == 0 {
		return nil
	}
	for _, answer := range leaseScript.ExecMulti(ctx, r.client, all...) {
		if err := answer.Error(); err != nil {
			return err
		}
	}
	return nil
}

func (s *share) endEra() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if lease := s.lease.Swap(nil); lease != nil {
		lease.End()
	}
	clear(s.back)
	s.extra = 0
	s.refused.Store(0)
}
