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
	of *shared

	declaring atomic.Bool  // what was spent
	silence   atomic.Int64 // until when nobody asks, on the store's clock

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

	mu    sync.Mutex // one asks at a time
	got   int64      // of the lease, when it began
	want  int64
	back  map[int64]int64 // what is to be given back, by its 80th
	extra int64           // spent without a lease
	shape window          // as it was last asked for
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
	return &share{of: l, name: redisWindows + string(k) + id, want: 1}
}

// taken is the outcome of take.
type taken uint8

const (
	granted   taken = iota
	exhausted       // the limit is
	uncounted       // Redis does not answer, and nothing may be spent yet without it
	alone           // Redis does not answer: the node's own share counts
)

// take spends amount of w, asking for a lease if what there is does not do. retry is how long until it is worth
// trying again.
func (s *share) take(w window, amount int64) (t taken, lease *limiter.Lease, retry time.Duration) {
	if t, lease, retry, settled := s.takeHere(w, amount); settled {
		return t, lease, retry
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if t, lease, retry, settled := s.takeHere(w, amount); settled { // somebody else has asked
		return t, lease, retry
	}
	ctx, cancel := context.WithTimeout(context.Background(), leaseWait)
	defer cancel()
	retry, err := s.ask(ctx, w, amount)
	if err != nil {
		s.of.failed(err)
		t, retry := s.withoutRedis(w.period)
		return t, nil, retry
	}
	if l := s.lease.Load(); l != nil && l.Take(s.of.of.store.now(), amount) {
		return granted, l, 0
	}
	return exhausted, nil, retry
}

// takeHere is what can be said without asking; settled is false where one must.
func (s *share) takeHere(w window, amount int64) (t taken, lease *limiter.Lease, retry time.Duration, settled bool) {
	now := s.of.of.store.now()
	if l := s.lease.Load(); l != nil && l.Take(now, amount) {
		return granted, l, 0, true
	}
	if until := time.Duration(s.refused.Load()); now < until && amount >= s.needed.Load() {
		return exhausted, nil, until - now, true
	}
	if s.of.silent(now) {
		t, retry = s.withoutRedis(w.period)
		return t, nil, retry, true
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

// withoutRedis is what holds while Redis does not answer: what others may have spent in the last period is not
// known, so nothing is spent for one; then each node has its part. retry is how long until that.
func (s *share) withoutRedis(period time.Duration) (t taken, retry time.Duration) {
	now := s.of.of.store.now()
	// Since it was noticed, not since it was last heard of: it may have given leases in between.
	if until := time.Duration(s.of.of.lostAt.Load()) + period + leaseTime(period); now < until {
		return uncounted, until - now
	}
	if s.of.declaring.Load() || !s.of.of.away.Load() {
		return uncounted, beatEvery
	}
	return alone, 0
}

// blind reports whether nothing may be spent now, though it may not be used up.
func (s *share) blind(period time.Duration) bool {
	if !s.of.silent(s.of.of.store.now()) {
		return false
	}
	t, _ := s.withoutRedis(period)
	return t == uncounted
}

// nodePart is this node's part of limit while Redis does not answer.
func (s *share) nodePart(limit int64) int64 { return limit / s.of.of.nodes.Load() }

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
		state.Remaining, state.RetryAfter = 0, until-now
	} else if s.asked.Load() {
		state.Remaining = min(state.Remaining, max(1, s.left()))
	}
	return state
}

// ask asks for a lease of amount at least, with mu held.
func (s *share) ask(ctx context.Context, w window, amount int64) (retry time.Duration, err error) {
	r := s.of.of
	now := r.store.now()
	if old := s.lease.Swap(nil); old != nil {
		left := old.End()
		if left > 0 {
			s.comesBack(old, left)
		}
		if used := s.got - left; left > 0 {
			s.want = max(1, used+used/4)
		} else {
			s.want = min(2*s.want, w.limit) // spent before its end
		}
	}
	want := max(amount, s.want)
	answer, err := s.send(ctx, w, amount, want)
	if err != nil {
		return 0, err
	}
	s.asked.Store(true)
	s.free.Store(answer[2])
	if answer[0] > 0 {
		s.got = answer[0]
		s.lease.Store(limiter.NewLease(answer[0], now+leaseTime(w.period), answer[1])) // since before it was asked for
		s.of.note(s)
		return 0, nil
	}
	// Others may give something back before; so it is asked for again before long.
	retry = time.Duration(answer[3]) * time.Millisecond
	pause := min(retry, max(w.period/400, time.Millisecond), mostPause)
	s.needed.Store(amount)
	s.refused.Store(int64(r.store.now() + pause))
	return retry, nil
}

// leaseArgs are those of leaseScript, but for what comes back.
func leaseArgs(era string, w window, least, want, nodes, extra int64) []string {
	args := []string{era, millis(w.period), "", "", "", millis(leaseTime(w.period)), "", ""}
	for i, n := range map[int]int64{2: w.limit, 3: least, 4: want, 6: nodes, 7: extra} {
		args[i] = strconv.FormatInt(n, 10)
	}
	return args
}

// send asks Redis, and says what comes back and what was spent without a lease. With mu held.
func (s *share) send(ctx context.Context, w window, least, want int64) ([]int64, error) {
	r := s.of.of
	s.shape = w
	era := r.era.Load()
	if era == nil {
		return nil, errAnswer
	}
	args := leaseArgs(*era, w, least, want, r.nodes.Load(), s.extra)
	for ends, n := range s.back {
		args = append(args, strconv.FormatInt(ends, 10), strconv.FormatInt(n, 10))
	}
	answer, err := leaseScript.Exec(ctx, r.client, []string{s.name, redisEra}, args).AsIntSlice()
	switch {
	case err != nil:
		return nil, err
	case len(answer) != 4:
		return nil, errAnswer
	case answer[0] < 0: // a new era: it is told of at the next beat
		return []int64{0, 0, 0, beatEvery.Milliseconds()}, nil
	}
	clear(s.back)
	s.extra = 0
	return answer, nil
}

// give puts back what was taken of lease and not used.
func (s *share) give(lease *limiter.Lease, amount int64) {
	if lease == nil || amount <= 0 || lease.Give(s.of.of.store.now(), amount) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.comesBack(lease, amount)
	s.of.note(s)
}

// comesBack notes what is to be given back of a lease. With mu held.
func (s *share) comesBack(lease *limiter.Lease, amount int64) {
	if s.back == nil {
		s.back = map[int64]int64{}
	}
	s.back[lease.Mark] += amount
}

// overspent notes what was used beyond what was taken.
func (s *share) overspent(amount int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.extra += amount
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

func (l *leases) list() []*share {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]*share, 0, len(l.active))
	for s := range l.active {
		all = append(all, s)
	}
	return all
}
