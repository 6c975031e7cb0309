package shared

import (
	"sync"
	"sync/atomic"
	"time"

	"sluice/keys"
	"sluice/limiter"
)

// share is this node's part of one limit of one key. It is a keys.Share.
type share struct {
	of   *leases
	name string // of the window in Redis

	lease   atomic.Pointer[limiter.Lease]
	asked   atomic.Bool
	free    atomic.Int64 // what others may still lease, when it was last asked
	refused atomic.Int64 // until when nothing is asked, on the clock of now
	needed  atomic.Int64 // smallest amount that was refused; smaller ones may still succeed
	unknown atomic.Bool  // refused is for another reason than that the limit is used up
	waiting atomic.Int64 // sum of the amounts that wait for an answer
	extra   atomic.Int64 // what was spent without a lease and is to be reported
	term    atomic.Int64 // grows with each era: what comes back of an older one is not counted any more

	asking chan struct{} // one asks at a time; a channel, so that the others need not wait for ever

	mu       sync.Mutex
	got      int64 // size of the lease when it began
	want     int64 // size of the next one
	say      report
	shape    limiter.Rule // as it was last asked for
	declared string       // the era in which it was last declared what had been spent before
}

// Share implements keys.SharedKeeper.
func (r *redis) Share(limit, id string) keys.Share { return r.leases.share(limit, id) }

func (l *leases) share(limit, id string) *share {
	return &share{of: l, name: redisWindows + limit + ":" + id, want: 1, asking: make(chan struct{}, 1)}
}

// Take implements keys.Share. It waits for Redis only where the lease does not do, leaseWait at most.
func (s *share) Take(c *keys.Charge, state *limiter.State, rule limiter.Rule, own limiter.Counter, now time.Duration, amount int64) (admitted bool) {
	amount = min(amount, rule.Limit)
	t, lease, retry := s.take(rule, amount)
	switch t {
	case granted:
		if !own.Take(&c.Own, state, now, amount, limiter.MaxLimit) {
			s.give(lease, amount)
			return false
		}
		state.Remaining = min(state.Remaining, s.left())
	case alone:
		if !own.Take(&c.Own, state, now, amount, s.nodePart(rule)) {
			*state = refusedByItself(*state, amount)
			return false
		}
	default:
		*state, _ = own.Peek(now, amount, limiter.MaxLimit)
		state.Remaining, state.RetryAfter, state.Uncounted = 0, retry, t == uncounted
		return false
	}
	c.Loan = keys.Loan{Lease: lease, Term: s.term.Load()}
	return true
}

// Peek implements keys.Share.
func (s *share) Peek(rule limiter.Rule, own limiter.Counter, now time.Duration, amount int64) (state limiter.State, admitted bool) {
	part, byItself := s.within(rule, now)
	if state, admitted = own.Peek(now, amount, part); byItself {
		return refusedByItself(state, min(amount, rule.Limit)), admitted
	}
	state = s.adjust(state, now)
	return state, admitted && (amount == 0 || state.Remaining > 0)
}

// Settle implements keys.Share.
func (s *share) Settle(loan keys.Loan, rule limiter.Rule, reserved, actual int64) {
	switch more := max(0, actual) - reserved; {
	case loan.Lease == nil && loan.Term == s.term.Load():
		s.overspent(rule, actual) // in a later term the reservation has been declared
	case more > 0:
		s.overspent(rule, more)
	default:
		s.give(loan.Lease, -more)
	}
}

// left is what may still be spent, here and elsewhere, as far as is known.
func (s *share) left() int64 {
	n := s.free.Load()
	if l := s.lease.Load(); l != nil {
		n += l.Left()
	}
	return n
}

// adjust turns the state of what this node has spent into that of what all nodes may spend.
func (s *share) adjust(state limiter.State, now time.Duration) limiter.State {
	if until := time.Duration(s.refused.Load()); now < until {
		state.Remaining, state.RetryAfter, state.Uncounted = 0, until-now, s.unknown.Load()
	} else if s.asked.Load() {
		state.Remaining = min(state.Remaining, max(1, s.left()))
	}
	return state
}
