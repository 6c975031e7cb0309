package shared

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sluice/internal/upstreamtest"
	"sluice/keys"
	"sluice/limiter"
)

func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	if !within(20*time.Second, is) {
		t.Fatalf("not in time: %s", what)
	}
}

func within(most time.Duration, is func() bool) bool {
	for deadline := time.Now().Add(most); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// TestOpenWaitsForRedis: a node starts though Redis takes longer to answer than a beat may.
func TestOpenWaitsForRedis(t *testing.T) {
	t.Parallel()
	redis := upstreamtest.StartRedis(t)
	redis.Command("CLIENT", "PAUSE", "1000", "WRITE")
	openNode(t, redis.URL())
}

// TestSharedKeys: what one node changes holds on the others.
func TestSharedKeys(t *testing.T) {
	t.Parallel()
	redis := upstreamtest.StartRedis(t)
	a, b := openNode(t, redis.URL()), openNode(t, redis.URL())
	made, secret := create(t, a.Store, keys.Spec{Name: "x", Limits: keys.Limits{Requests: ptr(int64(5))}})
	eventually(t, "the key is known there", func() bool { return b.Lookup([]byte(secret)) != nil })
	if _, err := b.Update(made.ID, func(s *keys.Spec) error { s.Name = "y"; return nil }); err != nil {
		t.Fatal(err)
	}
	eventually(t, "its name is known here", func() bool { return a.Lookup([]byte(secret)).Spec().Name == "y" })
	_, rotated, err := a.Rotate(made.ID)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the old secret has stopped there", func() bool { return b.Lookup([]byte(secret)) == nil && b.Lookup([]byte(rotated)) != nil })
	if err := b.Delete(made.ID); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is revoked here", func() bool { return a.Lookup([]byte(rotated)) == nil && a.Count() == 0 })

	// Both change one key at the same moment: one of them is told so, none is overwritten.
	made, _ = create(t, a.Store, keys.Spec{Name: "0"})
	eventually(t, "it is known there", func() bool { return b.Count() == 1 })
	var changes, refused atomic.Int64
	var wg sync.WaitGroup
	for _, n := range []testNode{a, b} {
		wg.Go(func() {
			for range 50 {
				_, err := n.Update(made.ID, func(s *keys.Spec) error { s.Name += "+"; return nil })
				switch {
				case err == nil:
					changes.Add(1)
				case !errors.Is(err, keys.ErrConflict):
					t.Error(err)
				default:
					refused.Add(1)
					_ = n.r.sync(context.Background())
				}
			}
		})
	}
	wg.Wait()
	for _, n := range []testNode{a, b} {
		eventually(t, "all changes are known", func() bool {
			k, _ := n.Get(made.ID)
			return strings.Count(k.Spec().Name, "+") == int(changes.Load())
		})
	}
	t.Logf("%d changes, %d refused", changes.Load(), refused.Load())

	c := openNode(t, redis.URL()) // and one that comes later
	if c.Count() != 1 {
		t.Errorf("%d keys", c.Count())
	}
}

// admissions are those that were seen: each was between two moments.
type admissions struct {
	mu  sync.Mutex
	all upstreamtest.Moments
	per []int
}

func (a *admissions) add(node int, before time.Time) {
	after := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all = append(a.all, upstreamtest.Moment{After: before, Before: after})
	if a.per != nil {
		a.per[node]++
	}
}

func (a *admissions) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.all)
}

// lately is how many there were in the last d.
func (a *admissions) lately(d time.Duration) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.all.Lately(d)
}

// come waits for d, and then until at least least came in the last d: other things that the machine does take some
// away, and a fault of ours would take them away always. It returns how many it were in the end.
func (a *admissions) come(d time.Duration, least int) (n int) {
	time.Sleep(d)
	within(3*d, func() bool { n = a.lately(d); return n >= least })
	return n
}

// drive has all nodes ask as fast as they can.
func (a *admissions) drive(ctx context.Context, nodes []testNode, id string) {
	a.per = make([]int, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		k, err := n.Get(id)
		if err != nil {
			panic(err)
		}
		for range 3 {
			wg.Go(func() {
				for ctx.Err() == nil && !n.dead.Load() {
					before := time.Now()
					if admit(k, n.r.now()) {
						a.add(i, before)
					} else {
						time.Sleep(time.Millisecond)
					}
				}
			})
		}
	}
	wg.Wait()
}

// start has the nodes driven until stop is called, which may be more than once.
func (a *admissions) start(nodes []testNode, id string) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); a.drive(ctx, nodes, id) }()
	return func() { cancel(); <-done }
}

// TestSharedLimit: over any period all nodes together admit no more than the limit, and one busy one
// gets nearly all of it.
func TestSharedLimit(t *testing.T) {
	t.Parallel()
	const limit, period = 500, 2 * time.Second // a lease is long beside what a busy machine makes it wait
	for _, count := range []int{1, 3} {
		t.Run(fmt.Sprint(count), func(t *testing.T) {
			t.Parallel()
			redis := upstreamtest.StartRedis(t)
			var nodes []testNode
			for range count {
				nodes = append(nodes, openNode(t, redis.URL()))
			}
			made, _ := create(t, nodes[0].Store, keys.Spec{Name: "x", Limits: keys.Limits{Requests: ptr(int64(limit)), Period: ptr(keys.Period(period))}})
			for _, n := range nodes {
				eventually(t, "the key is known", func() bool { _, err := n.Get(made.ID); return err == nil })
			}
			var a admissions
			stop := a.start(nodes, made.ID)
			defer stop()
			least := 5 * limit / 2 // TestOneBusyNode is stricter
			came := a.come(3*period+period/2, least)
			stop()
			most := a.all.Most(period)
			if most > limit {
				t.Errorf("%d admissions in a period, the limit is %d", most, limit)
			}
			if came < least {
				t.Errorf("%d admissions in three periods and a half, less than %d: %v", came, least, a.per)
			}
			t.Logf("%d in 3.5 periods, most %d, %v", came, most, a.per)
		})
	}
}

// TestOneBusyNode: a node that always asks gets at least 95% of a limit. A machine that is busy with other things
// takes time from it, never gives it any: the best two periods in a row count, and of none it gets more than the limit.
func TestOneBusyNode(t *testing.T) {
	t.Parallel()
	redis := upstreamtest.StartRedis(t)
	n := openNode(t, redis.URL())
	const limit, period, most = 200, 3 * time.Second, 10
	made, _ := create(t, n.Store, keys.Spec{Name: "x", Limits: keys.Limits{Requests: ptr(int64(limit)), Period: ptr(keys.Period(period))}})
	k, _ := n.Get(made.ID)
	var begins []time.Time // of each limit-ful
	best := 0.0
	deadline := time.Now().Add(most * period)
	for admitted := 0; best < 0.95 && time.Now().Before(deadline); {
		if !admit(k, n.r.now()) {
			time.Sleep(time.Millisecond)
			continue
		}
		if admitted++; admitted%limit != 1 {
			continue
		}
		begins = append(begins, time.Now())
		if last := len(begins) - 1; last >= 2 {
			share := float64(2*period) / float64(begins[last].Sub(begins[last-2]))
			if share > 1 {
				t.Errorf("it gets %.3f of the limit", share)
			}
			best = max(best, share)
		}
	}
	if best < 0.95 {
		t.Errorf("it gets %.3f of the limit", best)
	}
	t.Logf("it gets %.3f of the limit", best)
}

// TestSharedTokens: what is reserved and not used comes back, and together the nodes use no more than the limit.
func TestSharedTokens(t *testing.T) {
	t.Parallel()
	redis := upstreamtest.StartRedis(t)
	const limit, period, reserved, used = 2000, 2 * time.Second, 40, 10
	var nodes []testNode
	for range 3 {
		nodes = append(nodes, openNode(t, redis.URL()))
	}
	made, _ := create(t, nodes[0].Store, keys.Spec{Name: "x", Limits: keys.Limits{Tokens: ptr(int64(limit)), Period: ptr(keys.Period(period))}})
	ctx, cancel := context.WithCancel(context.Background())
	var a admissions
	var wg sync.WaitGroup
	for _, n := range nodes {
		eventually(t, "the key is known", func() bool { _, err := n.Get(made.ID); return err == nil })
		k, _ := n.Get(made.ID)
		for range 3 {
			wg.Go(func() {
				for ctx.Err() == nil {
					before := time.Now()
					c, _, ok := reserve(k, n.r.now(), reserved)
					if !ok {
						time.Sleep(time.Millisecond)
						continue
					}
					a.add(0, before)
					time.Sleep(10 * time.Millisecond)
					c.settle(n.r.now(), used)
				}
			})
		}
	}
	all := a.come(3*period, 3*limit*6/10/used) * used
	cancel()
	wg.Wait()
	most := a.all.Most(period) * used
	if most > limit || all < 3*limit*6/10 {
		t.Errorf("%d tokens in a period and %d in three, the limit is %d", most, all, limit)
	}
	for _, n := range nodes {
		k, _ := n.Get(made.ID)
		if k.Unsettled() != 0 {
			t.Errorf("%d charges to settle", k.Unsettled())
		}
	}
	t.Logf("%d in three periods, %d in one", all, most)
}

// onTheirOwn waits until the nodes admit without Redis: nothing for a period, then each its part.
func onTheirOwn(t *testing.T, a *admissions, period time.Duration, limit int) {
	t.Helper()
	time.Sleep(period / 2) // leases are over
	before := a.count()
	time.Sleep(period / 4)
	if n := a.count() - before; n > 0 {
		t.Errorf("%d admissions before anybody knows what the others have spent", n)
	}
	before = a.count()
	time.Sleep(3 * period)
	if n := a.count() - before; n == 0 || n > 4*limit {
		t.Errorf("%d admissions in three periods without Redis", n)
	}
}

// TestSharedFaults: whatever becomes of Redis, or of a node, over any period no more is admitted than the
// limit, and when it is over all is as before.
func TestSharedFaults(t *testing.T) {
	t.Parallel()
	const limit, period = 300, time.Second
	for _, test := range []struct {
		name string
		lag  time.Duration // of each node's clock
		do   func(t *testing.T, redis *upstreamtest.Redis, nodes []testNode, a *admissions)
	}{
		{name: "Redis is killed", do: func(t *testing.T, redis *upstreamtest.Redis, nodes []testNode, a *admissions) {
			redis.Kill()
			onTheirOwn(t, a, period, limit)
			eventually(t, "all have noticed", func() bool {
				for _, n := range nodes {
					if s, _ := n.Sharing(); s.Answers {
						return false
					}
				}
				return true
			})
			if _, _, err := nodes[0].Create(keys.Spec{Name: "y"}); !errors.Is(err, keys.ErrUnavailable) {
				t.Errorf("a key is made: %v", err)
			}
			redis.Start()
		}},
		{name: "Redis is killed for a moment", do: func(t *testing.T, redis *upstreamtest.Redis, _ []testNode, a *admissions) {
			redis.Kill()
			redis.Start()
		}},
		{name: "Redis is stopped", do: func(t *testing.T, redis *upstreamtest.Redis, _ []testNode, a *admissions) {
			redis.Signal(syscall.SIGSTOP)
			onTheirOwn(t, a, period, limit)
			redis.Signal(syscall.SIGCONT)
		}},
		{name: "Redis is emptied", do: func(t *testing.T, redis *upstreamtest.Redis, _ []testNode, a *admissions) { redis.Command("FLUSHALL") }},
		{name: "a node ends with leases", do: func(t *testing.T, _ *upstreamtest.Redis, nodes []testNode, _ *admissions) {
			nodes[2].dead.Store(true)
			nodes[2].r.stop() // no word more
		}},
		{name: "clocks differ by a minute", lag: time.Minute, do: func(*testing.T, *upstreamtest.Redis, []testNode, *admissions) {}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			redis := upstreamtest.StartRedis(t)
			var nodes []testNode
			for i := range 3 {
				nodes = append(nodes, openNodeAt(t, redis.URL(), time.Duration(i)*test.lag))
			}
			made, secret := create(t, nodes[0].Store, keys.Spec{Name: "x", Limits: keys.Limits{Requests: ptr(int64(limit)), Period: ptr(keys.Period(period))}})
			for _, n := range nodes {
				eventually(t, "the key is known, and the others", func() bool {
					_, err := n.Get(made.ID)
					s, _ := n.Sharing()
					return err == nil && s.Nodes == 3
				})
			}
			var a admissions
			stop := a.start(nodes, made.ID)
			defer stop()
			time.Sleep(2 * period)
			test.do(t, redis, nodes, &a)
			eventually(t, "all nodes hear of it again", func() bool {
				for _, n := range nodes[:2] {
					if s, _ := n.Sharing(); !s.Answers || s.Silent > 2*quickPace.beat {
						return false
					}
				}
				return true
			})
			time.Sleep(quickPace.settle + period)
			least := 2 * limit * 9 / 10
			after := a.come(3*period, least)
			stop()
			if after < least {
				t.Errorf("after it %d admissions in three periods", after)
			}
			if most := a.all.Most(period); most > limit {
				t.Errorf("%d admissions in a period, the limit is %d", most, limit)
			}
			for _, n := range nodes[:2] {
				if n.Lookup([]byte(secret)) == nil {
					t.Error("the key has gone")
				}
			}
			late := openNode(t, redis.URL())
			if late.Lookup([]byte(secret)) == nil {
				t.Error("a node that comes now does not know the key")
			}
			t.Logf("%d admissions, %d in three periods after it, most %d, %v", a.count(), after, a.all.Most(period), a.per)
		})
	}
}

// BenchmarkLease is what Redis takes for one lease, with many asked for at once, of many keys.
func BenchmarkLease(b *testing.B) {
	redis := upstreamtest.StartRedis(b)
	n := openNode(b, redis.URL())
	var next atomic.Int64
	b.SetParallelism(64)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		s := n.r.leases.share("requests", fmt.Sprint(next.Add(1)))
		for pb.Next() {
			if _, err := s.send(context.Background(), limiter.Rule{Limit: 1_000_000_000, Period: time.Minute}, 1, 10); err != nil {
				b.Error(err)
			}
		}
	})
}

// BenchmarkTake is what a request costs while its node has a lease.
func BenchmarkTake(b *testing.B) {
	redis := upstreamtest.StartRedis(b)
	n := openNode(b, redis.URL())
	made, _ := create(b, n.Store, keys.Spec{Name: "x", Limits: keys.Limits{Requests: ptr(int64(1_000_000_000)), Period: ptr(keys.Period(time.Hour))}})
	k, _ := n.Get(made.ID)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		c := &make([]charge, 8)[4] // in no cache line of another goroutine's
		for pb.Next() {
			if k.Reserve(n.r.now(), c, &c.Reservation) != nil {
				b.Fatal("refused")
			}
		}
	})
}

// TestLostChange: what a node was told is done is done, though Redis loses it.
func TestLostChange(t *testing.T) {
	t.Parallel()
	redis := upstreamtest.StartRedis(t)
	a, b := openNode(t, redis.URL()), openNode(t, redis.URL())
	made, secret := create(t, a.Store, keys.Spec{Name: "x"})
	eventually(t, "the key is known", func() bool { return b.Lookup([]byte(secret)) != nil })
	redis.Command("COPY", redisRecords, "old:records")
	redis.Command("COPY", redisChanged, "old:changed")
	if err := a.Delete(made.ID); err != nil {
		t.Fatal(err)
	}
	// As after a failover to a replica that had not heard of it.
	redis.Command("EVAL", `redis.call('COPY', 'old:records', KEYS[1], 'REPLACE') redis.call('COPY', 'old:changed', KEYS[2], 'REPLACE') redis.call('DEL', KEYS[3]) redis.call('DECR', KEYS[4])`,
		"4", redisRecords, redisChanged, redisDeleted, redisVersion)
	eventually(t, "it is revoked everywhere", func() bool { // and whoever finds out first says so
		return a.Lookup([]byte(secret)) == nil && b.Lookup([]byte(secret)) == nil && strings.Contains(a.log.String()+b.log.String(), "has lost changes")
	})
	if c := openNode(t, redis.URL()); c.Count() != 0 {
		t.Error("it is there again")
	}
}

// TestEmptiedWhileOthersCome: Redis is emptied, and a node that knows nothing is the first to come.
func TestEmptiedWhileOthersCome(t *testing.T) {
	t.Parallel()
	redis := upstreamtest.StartRedis(t)
	a := openNode(t, redis.URL())
	_, secret := create(t, a.Store, keys.Spec{Name: "x"})
	a.r.away.Store(true) // it hears nothing for a while
	stop := a.r.stop
	stop()
	a.r.ended.Wait()
	redis.Command("FLUSHALL")
	b := openNode(t, redis.URL())
	create(t, b.Store, keys.Spec{Name: "y"})
	create(t, b.Store, keys.Spec{Name: "z"})
	ctx := context.Background()
	if _, err := a.r.beat(ctx); err != nil {
		t.Fatal(err)
	}
	if err := a.r.follow(ctx); err != nil {
		t.Fatal(err)
	}
	eventually(t, "both know all keys", func() bool { return a.Count() == 3 && b.Count() == 3 && b.Lookup([]byte(secret)) != nil })
}

// TestRestartWithOldState: what Redis has counted after its last snapshot is counted all the same.
func TestRestartWithOldState(t *testing.T) {
	t.Parallel()
	redis := upstreamtest.StartRedis(t, "--appendonly", "no")
	var nodes []testNode
	for range 2 {
		nodes = append(nodes, openNode(t, redis.URL()))
	}
	const limit, period = 600, 5 * time.Second
	made, _ := create(t, nodes[0].Store, keys.Spec{Name: "x", Limits: keys.Limits{Requests: ptr(int64(limit)), Period: ptr(keys.Period(period))}})
	eventually(t, "the key is known", func() bool { _, err := nodes[1].Get(made.ID); return err == nil })
	redis.Command("SAVE")
	ctx, cancel := context.WithTimeout(context.Background(), period-time.Second)
	defer cancel()
	var a admissions
	done := make(chan struct{})
	go func() { defer close(done); a.drive(ctx, nodes, made.ID) }()
	eventually(t, "the limit is used up", func() bool { return a.count() >= limit-10 })
	redis.Kill()
	redis.Start()
	<-done
	if n := a.count(); n > limit {
		t.Errorf("%d admissions in less than a period, the limit is %d", n, limit)
	}
}

// TestLeaseIsNotWaitedForLong: though many ask at once, and Redis takes its time.
func TestLeaseIsNotWaitedForLong(t *testing.T) {
	t.Parallel()
	redis := upstreamtest.StartRedis(t)
	n := openNode(t, redis.URL())
	made, _ := create(t, n.Store, keys.Spec{Name: "x", Limits: keys.Limits{Tokens: ptr(int64(1_000_000)), Period: ptr(keys.Period(time.Minute))}})
	k, _ := n.Get(made.ID)
	redis.Signal(syscall.SIGSTOP)
	defer redis.Signal(syscall.SIGCONT)
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			began := time.Now()
			if _, _, admitted := reserve(k, n.r.now(), 5000); admitted {
				t.Error("admitted")
			}
			if took := time.Since(began); took > 10*leaseWait { // one after the other would take 12 s
				t.Errorf("it took %v", took)
			}
		})
	}
	wg.Wait()
}

// TestForgottenDeletions: a node that was away for longer than deleted keys are remembered.
func TestForgottenDeletions(t *testing.T) {
	t.Parallel()
	redis := upstreamtest.StartRedis(t)
	a, b := openNode(t, redis.URL()), openNode(t, redis.URL())
	a.r.kept, b.r.kept = 3, 3
	var ids []string
	for range 10 {
		made, _ := create(t, a.Store, keys.Spec{Name: "x"})
		ids = append(ids, made.ID)
	}
	eventually(t, "all are known", func() bool { return b.Count() == 10 })
	b.r.syncing.Lock() // it hears nothing
	for _, id := range ids[:8] {
		if err := a.Delete(id); err != nil {
			t.Fatal(err)
		}
	}
	b.r.syncing.Unlock()
	eventually(t, "what was deleted is gone", func() bool { return b.Count() == 2 })
}

// TestOverspentTokens: what was used beyond what was reserved is counted for all.
func TestOverspentTokens(t *testing.T) {
	t.Parallel()
	redis := upstreamtest.StartRedis(t)
	a, b := openNode(t, redis.URL()), openNode(t, redis.URL())
	made, _ := create(t, a.Store, keys.Spec{Name: "x", Limits: keys.Limits{Tokens: ptr(int64(1000)), Period: ptr(keys.Period(time.Minute))}})
	eventually(t, "the key is known", func() bool { _, err := b.Get(made.ID); return err == nil })
	ka, _ := a.Get(made.ID)
	kb, _ := b.Get(made.ID)
	var c *charge
	eventually(t, "a lease is answered in time", func() (admitted bool) {
		c, _, admitted = reserve(ka, a.r.now(), 10)
		return admitted
	})
	c.settle(a.r.now(), 980)
	eventually(t, "the other node hears of it", func() bool {
		c, state, admitted := reserve(kb, b.r.now(), 30)
		if admitted {
			c.settle(b.r.now(), 0)
		}
		return !admitted && !state.Uncounted
	})
	eventually(t, "what is left is given", func() bool {
		c, _, admitted := reserve(kb, b.r.now(), 10)
		if admitted {
			c.settle(b.r.now(), 10)
		}
		return admitted
	})
}

// TestLeaseIsNotAllocated: a request on a lease.
func TestLeaseIsNotAllocated(t *testing.T) {
	redis := upstreamtest.StartRedis(t)
	n := openNode(t, redis.URL())
	made, _ := create(t, n.Store, keys.Spec{Name: "x", Limits: keys.Limits{Requests: ptr(int64(1_000_000)), Tokens: ptr(int64(1_000_000_000)), Period: ptr(keys.Period(time.Hour))}})
	k, _ := n.Get(made.ID)
	c := &charge{}
	admit := func() {
		k.Reserve(n.r.now(), c, &c.Reservation)
		c.settle(n.r.now(), 0)
	}
	for range 10_000 { // so that leases have grown
		admit()
	}
	if allocs := testing.AllocsPerRun(1000, admit); allocs >= 1 {
		t.Errorf("%.1f allocations", allocs)
	}
}

// TestMergeAfterDeletion: a key that was deleted in the new lineage is not brought back by a node that comes later.
func TestMergeAfterDeletion(t *testing.T) {
	t.Parallel()
	redis := upstreamtest.StartRedis(t)
	a, b := openNode(t, redis.URL()), openNode(t, redis.URL())
	made, secret := create(t, a.Store, keys.Spec{Name: "x"})
	eventually(t, "the key is known", func() bool { return b.Lookup([]byte(secret)) != nil })
	for _, n := range []testNode{a, b} { // they hear nothing for a while
		n.r.stop()
		n.r.ended.Wait()
	}
	redis.Command("FLUSHALL")
	c := openNode(t, redis.URL())
	hear := func(n testNode) {
		if _, err := n.r.beat(context.Background()); err != nil {
			t.Fatal(err)
		}
		if err := n.r.follow(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	hear(a)
	eventually(t, "the key is there again", func() bool { return c.Lookup([]byte(secret)) != nil })
	if err := c.Delete(made.ID); err != nil {
		t.Fatal(err)
	}
	late, kept := create(t, c.Store, keys.Spec{Name: "y"})
	hear(b)
	hear(b)
	hear(a)
	if b.Lookup([]byte(secret)) != nil || a.Lookup([]byte(secret)) != nil || c.Lookup([]byte(secret)) != nil {
		t.Error("a revoked key works again")
	}
	for _, n := range []testNode{a, b, c} {
		if n.Lookup([]byte(kept)) == nil {
			t.Errorf("the key %s is gone", late.ID)
		}
	}
}

// TestUnansweredGiveBack: what was given back without an answer is not given back again.
func TestUnansweredGiveBack(t *testing.T) {
	t.Parallel()
	redis := upstreamtest.StartRedis(t)
	a, b := openNode(t, redis.URL()), openNode(t, redis.URL())
	const limit = 1000
	made, _ := create(t, a.Store, keys.Spec{Name: "x", Limits: keys.Limits{Tokens: ptr(int64(limit)), Period: ptr(keys.Period(time.Minute))}})
	eventually(t, "the key is known", func() bool { _, err := b.Get(made.ID); return err == nil })
	ka, _ := a.Get(made.ID)
	kb, _ := b.Get(made.ID)
	spent := 0
	for range 3 { // both have leases that end at about the same time
		for _, n := range []struct {
			node testNode
			key  *keys.Key
		}{{a, ka}, {b, kb}} {
			eventually(t, "a lease is answered in time", func() bool {
				c, _, admitted := reserve(n.key, n.node.r.now(), 100)
				if admitted {
					spent += 100
					c.settle(n.node.r.now(), 100)
				}
				return admitted
			})
		}
	}
	if lease := shareOf(ka, "tokens").lease.Load(); lease == nil || lease.Left() == 0 {
		t.Fatal("there is nothing to give back")
	}
	// Asking gives back what is left of the lease. Nobody answers in time, but Redis hears it when it goes on.
	redis.Signal(syscall.SIGSTOP)
	if _, _, admitted := reserve(ka, a.r.now(), limit); admitted {
		t.Error("admitted while Redis is stopped")
	}
	redis.Signal(syscall.SIGCONT)
	for deadline := time.Now().Add(3 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		for _, n := range []struct {
			node testNode
			key  *keys.Key
		}{{a, ka}, {b, kb}} {
			if c, _, admitted := reserve(n.key, n.node.r.now(), 10); admitted {
				spent += 10
				c.settle(n.node.r.now(), 10)
			}
		}
	}
	if spent > limit {
		t.Errorf("%d tokens were spent, the limit is %d", spent, limit)
	}
}
