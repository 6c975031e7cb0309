package keys

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"sluice/limiter"
)

// leases are the parts of keys' limits that this node may spend without asking.
type leases struct {
	of      *shared
	silence atomic.Int64 // until when nobody asks, on the store's clock

	mu     sync.Mutex
	active map[*share]struct{} // that have something to give back, or to say
}

// kind is what a share is of.
type kind string

const (
	ofRequests kind = "requests:"
	ofTokens   kind = "tokens:"
)

// share is this node's part of one limit of one key.
type share struct {
	of   *leases
	name string // of the window in Redis

	lease   atomic.Pointer[limiter.Lease]
	asked   atomic.Bool
	free    atomic.Int64 // what others may still lease, when it was last asked
	refused atomic.Int64 // until when nothing is asked, on the store's clock
	needed  atomic.Int64 // that is, as much as this or more
	unknown atomic.Bool  // whether refused is for another reason than that the limit is used up
	waiting atomic.Int64 // what those who wait for an answer need
	extra   atomic.Int64 // what was spent without a lease and is to be said
	term    atomic.Int64 // grows with each era: what comes back of an older one is not counted any more

	asking chan struct{} // one asks at a time; a channel, so that the others need not wait for ever

	mu       sync.Mutex
	got      int64 // of the lease, when it began
	want     int64
	say      report
	shape    window // as it was last asked for
	declared string // the era in which what was spent before it was said
}

// report is what Redis is to be told.
type report struct {
	back  map[int64]int64 // what comes back of leases, by the 80th of a period in which they end
	extra int64           // what was spent without a lease
}

// window is the limit of which a share is.
type window struct {
	period time.Duration
	limit  int64
}

// mostPause is how long at most nothing is asked of a limit that was used up: others may give something back.
const mostPause = 250 * time.Millisecond

// leaseTime is how long a lease of a limit with that period holds.
func leaseTime(period time.Duration) time.Duration { return min(period/40, 5*time.Second) }

func (l *leases) share(k kind, id string) *share {
	return &share{of: l, name: redisWindows + string(k) + id, want: 1, asking: make(chan struct{}, 1)}
}

// taken is the outcome of take.
type taken uint8

const (
	granted   taken = iota
	exhausted       // the limit is
	uncounted       // it is not known what others have spent: Redis does not answer, or a new era has not opened
	alone           // the same, and the node's own part of the limit counts
)

// take spends amount of w, asking for a lease if what there is does not do. It waits leaseWait at most. retry is how
// long until it is worth trying again. Where alone comes back, nothing is spent yet.
func (s *share) take(w window, amount int64) (t taken, lease *limiter.Lease, retry time.Duration) {
	if t, lease, retry = s.takeCounted(w, amount); t == uncounted {
		t, retry = s.takeUncounted(w, retry)
	}
	return t, lease, retry
}

// takeCounted is take where nothing is spent that Redis has not counted.
func (s *share) takeCounted(w window, amount int64) (t taken, lease *limiter.Lease, retry time.Duration) {
	if t, lease, retry, settled := s.takeHere(w, amount); settled {
		return t, lease, retry
	}
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
	if t, lease, retry, settled := s.takeHere(w, amount); settled { // somebody else has asked
		return t, lease, retry
	}
	began := s.of.of.store.now()
	t, lease, retry, err := s.ask(ctx, w, amount)
	switch {
	case err != nil && s.of.of.store.now()-began < leaseWait/2 && ctx.Err() != nil:
		return uncounted, nil, leaseWait // it had waited for its turn too long to say anything of Redis
	case err != nil:
		s.of.failed(err)
		return uncounted, nil, afterFailure
	}
	return t, lease, retry
}

// takeHere is what can be said without asking; settled is false where one must.
func (s *share) takeHere(w window, amount int64) (t taken, lease *limiter.Lease, retry time.Duration, settled bool) {
	now := s.of.of.store.now()
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

// afterFailure is how long nobody else asks when a lease was asked for in vain: each would wait as long.
const afterFailure = 100 * time.Millisecond

// failed notes that a lease was asked for in vain. Whether Redis is away the next beat will tell.
func (l *leases) failed(err error) {
	l.silence.Store(int64(l.of.store.now() + afterFailure))
	l.of.log.Warn("a lease was not answered", "error", err)
}

// silent reports whether it is of no use to ask now.
func (l *leases) silent(now time.Duration) bool {
	return l.of.away.Load() || now < time.Duration(l.silence.Load())
}

// left is what may still be spent, here and elsewhere, as far as is known.
func (s *share) left() int64 {
	n := s.free.Load()
	if l := s.lease.Load(); l != nil {
		n += l.Left()
	}
	return n
}

// adjust makes of what this node has spent itself what is left of what all may spend. s may be nil.
func (s *share) adjust(state limiter.State, now time.Duration) limiter.State {
	if s == nil {
		return state
	}
	if until := time.Duration(s.refused.Load()); now < until {
		state.Remaining, state.RetryAfter, state.Uncounted = 0, until-now, s.unknown.Load()
	} else if s.asked.Load() {
		state.Remaining = min(state.Remaining, max(1, s.left()))
	}
	return state
}

// ask asks for a lease out of which amount is taken, and returns it; nil if there is none, and then why and how long
// until one may be had. One goroutine at a time.
func (s *share) ask(ctx context.Context, w window, amount int64) (t taken, lease *limiter.Lease, retry time.Duration, err error) {
	r := s.of.of
	sent := r.store.now()
	s.mu.Lock()
	if old := s.lease.Swap(nil); old != nil {
		left := s.ended(old)
		if used := s.got - left; left > 0 {
			s.want = max(1, used+used/4)
		} else { // spent before its end
			s.want = 2 * s.want
		}
	}
	s.want = min(max(s.want, 2*amount, s.waiting.Load()), w.limit)
	want, term := max(amount, s.want), s.term.Load()
	s.mu.Unlock()
	answer, err := s.send(ctx, w, amount, want)
	if err != nil {
		return 0, nil, 0, err
	}
	t = exhausted
	if answer[0] < 0 {
		t = uncounted
	} else {
		s.asked.Store(true)
		s.free.Store(answer[2])
	}
	now, until := r.store.now(), sent+leaseTime(w.period) // since before it was asked for
	if grant := answer[0]; grant > 0 {
		lease = limiter.NewLease(grant-amount, until, answer[1], term)
		if now < until && s.begin(lease, grant) {
			return granted, lease, 0, nil
		}
		s.comesBack(lease, grant) // it came too late to be spent
		return uncounted, nil, time.Millisecond, nil
	}
	retry = time.Duration(answer[3]) * time.Millisecond
	s.needed.Store(amount)
	s.unknown.Store(t == uncounted)
	s.refused.Store(int64(now + min(retry, max(w.period/400, time.Millisecond), mostPause)))
	return t, nil, retry, nil
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

// ended ends a lease and notes what comes back of it. With mu held.
func (s *share) ended(lease *limiter.Lease) (left int64) {
	if left = lease.End(); left > 0 {
		s.say.add(lease.Mark, left)
	}
	return left
}

func (r *report) add(mark, amount int64) {
	if r.back == nil {
		r.back = map[int64]int64{}
	}
	r.back[mark] += amount
}

func (r *report) empty() bool { return len(r.back) == 0 && r.extra == 0 }

// leaseArgs are those of leaseScript.
func leaseArgs(era string, w window, least, want, nodes int64, say report) []string {
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	args := []string{era, millis(w.period), number(w.limit), number(least), number(want), millis(leaseTime(w.period)), number(nodes), number(say.extra)}
	for mark, n := range say.back {
		args = append(args, number(mark), number(n))
	}
	return args
}

// reported takes what Redis is to be told, in the era that it is of.
func (s *share) reported(w window) (say report, era string, term int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shape = w
	say, s.say = s.say, report{}
	say.extra = s.extra.Swap(0)
	return say, *s.of.of.era.Load(), s.term.Load()
}

// unreported notes anew what was spent, where Redis has not answered, or knows another era that this share has begun
// already. What was to come back is not said again: it may have been heard, and would come back twice.
func (s *share) unreported(w window, say report, term int64) {
	if say.extra > 0 && term == s.term.Load() {
		s.overspent(w, say.extra)
	}
}

// send asks Redis, and says what comes back and what was spent without a lease.
func (s *share) send(ctx context.Context, w window, least, want int64) ([]int64, error) {
	r := s.of.of
	say, era, term := s.reported(w)
	answer, err := leaseScript.Exec(ctx, r.client, []string{s.name, redisEra}, leaseArgs(era, w, least, want, r.nodes.Load(), say)).AsIntSlice()
	if err == nil && len(answer) != 4 {
		err = errAnswer
	}
	if err != nil {
		s.unreported(w, say, term)
		return nil, err
	}
	if answer[0] == otherEra { // what was spent is said in it anew
		s.unreported(w, say, term)
		answer[3] = beatEvery.Milliseconds()
	}
	return answer, nil
}

// give puts back what was taken of lease and not used.
func (s *share) give(lease *limiter.Lease, amount int64) {
	if lease == nil || amount <= 0 || lease.Give(s.of.of.store.now(), amount) {
		return
	}
	s.comesBack(lease, amount)
}

func (s *share) comesBack(lease *limiter.Lease, amount int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if lease.Term == s.term.Load() { // else what this node has spent was declared since, and this with it
		s.say.add(lease.Mark, amount)
		s.of.note(s)
	}
}

// overspent notes what was used beyond what was taken. Only the first that there is to say takes a lock.
func (s *share) overspent(w window, amount int64) {
	if amount <= 0 || s.extra.Add(amount) != amount {
		return
	}
	s.mu.Lock()
	s.shape = w
	s.mu.Unlock()
	s.of.note(s)
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
