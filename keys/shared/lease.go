package shared

import (
	"context"
	"time"

	"sluice/limiter"
)

const (
	// leaseWait bounds the wait for an answer to a request for a lease.
	leaseWait = 250 * time.Millisecond
	// mostPause bounds how long nothing is asked of a limit that was used up: others may give
	// something back.
	mostPause = 250 * time.Millisecond
)

// leaseTime is how long a lease of a limit with that period holds.
func leaseTime(period time.Duration) time.Duration { return min(period/40, 5*time.Second) }

// taken is the outcome of take.
type taken uint8

const (
	granted   taken = iota
	exhausted       // the limit is used up
	uncounted       // it is not known what others have spent: Redis does not answer, or a new era has not opened
	alone           // the same, and this node's own part of the limit counts
)

// take spends amount of rule. If the lease does not do, it asks for another one and waits leaseWait
// at most. retry is how long until it is worth trying again. When it returns alone, nothing is
// spent yet.
func (s *share) take(rule limiter.Rule, amount int64) (t taken, lease *limiter.Lease, retry time.Duration) {
	t, lease, retry, decided := s.takeHere(amount)
	if !decided {
		t, lease, retry = s.takeAsking(rule, amount)
	}
	if t == uncounted {
		t, retry = s.takeUncounted(rule, retry)
	}
	return t, lease, retry
}

// takeAsking asks Redis, or waits for somebody else who does.
func (s *share) takeAsking(rule limiter.Rule, amount int64) (t taken, lease *limiter.Lease, retry time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), leaseWait)
	defer cancel()
	s.waiting.Add(amount)
	defer s.waiting.Add(-amount)
	select {
	case s.asking <- struct{}{}:
	case <-ctx.Done():
		return uncounted, nil, leaseWait
	}
	defer func() { <-s.asking }()
	if t, lease, retry, decided := s.takeHere(amount); decided { // somebody else has asked
		return t, lease, retry
	}
	began := s.of.of.now()
	t, lease, retry, err := s.ask(ctx, rule, amount)
	switch {
	case err != nil && s.of.of.now()-began < leaseWait/2 && ctx.Err() != nil:
		return uncounted, nil, leaseWait // it had waited for its turn too long to say anything of Redis
	case err != nil:
		s.of.failed(err)
		return uncounted, nil, afterFailure
	}
	return t, lease, retry
}

// takeHere is take without asking Redis. decided is false where it must be asked.
func (s *share) takeHere(amount int64) (t taken, lease *limiter.Lease, retry time.Duration, decided bool) {
	now := s.of.of.now()
	if l := s.lease.Load(); l != nil && l.Take(now, amount) {
		return granted, l, 0, true
	}
	if until := time.Duration(s.refused.Load()); now < until && amount >= s.needed.Load() {
		if s.unknown.Load() {
			return uncounted, nil, until - now, true
		}
		return exhausted, nil, until - now, true
	}
	if s.of.silent(now) {
		return uncounted, nil, afterFailure, true
	}
	return 0, nil, 0, false
}

// ask asks for a lease, takes amount out of it, and returns it. If there is none, it returns why,
// and how long until there may be one. One goroutine asks at a time.
func (s *share) ask(ctx context.Context, rule limiter.Rule, amount int64) (t taken, lease *limiter.Lease, retry time.Duration, err error) {
	sent := s.of.of.now()
	want, term := s.size(rule, amount)
	answer, err := s.send(ctx, rule, amount, want)
	if err != nil {
		return 0, nil, 0, err
	}
	grant, mark, free := answer[0], answer[1], answer[2]
	t = exhausted
	if grant < 0 {
		t = uncounted
	} else {
		s.asked.Store(true)
		s.free.Store(free)
	}
	now, until := s.of.of.now(), sent+leaseTime(rule.Period) // since before it was asked for
	if grant > 0 {
		lease = limiter.NewLease(grant-amount, until, mark, term)
		if now < until && s.begin(lease, grant) {
			return granted, lease, 0, nil
		}
		s.comesBack(lease, grant) // it came too late to be spent
		return uncounted, nil, time.Millisecond, nil
	}
	retry = time.Duration(answer[3]) * time.Millisecond
	s.needed.Store(amount)
	s.unknown.Store(t == uncounted)
	s.refused.Store(int64(now + min(retry, max(rule.Period/400, time.Millisecond), mostPause)))
	return t, nil, retry, nil
}

// size ends the lease, and decides how much to ask for next: twice as much where all was spent, and
// else a quarter more than was spent.
func (s *share) size(rule limiter.Rule, amount int64) (want, term int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.lease.Swap(nil); old != nil {
		left := s.end(old)
		if used := s.got - left; left > 0 {
			s.want = max(1, used+used/4)
		} else {
			s.want = 2 * s.want
		}
	}
	s.want = min(max(s.want, 2*amount, s.waiting.Load()), rule.Limit)
	return max(amount, s.want), s.term.Load()
}

// begin has a lease be spent from now on, unless it is of an era that has ended meanwhile.
func (s *share) begin(lease *limiter.Lease, grant int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if lease.Term != s.term.Load() {
		return false
	}
	s.got = grant
	s.lease.Store(lease)
	s.of.note(s)
	return true
}

// end ends a lease and notes what comes back of it. mu is held.
func (s *share) end(lease *limiter.Lease) (left int64) {
	if left = lease.End(); left > 0 {
		s.say.add(lease.Mark, left)
	}
	return left
}

// endIfOver ends the lease if it is over, and reports whether there is none now.
func (s *share) endIfOver(over func(*limiter.Lease) bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	lease := s.lease.Load()
	if lease == nil {
		return true
	}
	if !over(lease) || !s.lease.CompareAndSwap(lease, nil) {
		return false
	}
	if left := s.end(lease); left > 0 {
		s.want = max(1, s.got-left)
	}
	return true
}
