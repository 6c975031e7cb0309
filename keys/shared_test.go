package keys

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sluice/internal/upstreamtest"
)

// testNode is a store on a shared Redis, with a clock of its own.
type testNode struct {
	*Store
	log  *upstreamtest.Buffer
	dead *atomic.Bool
}

func openNode(t testing.TB, url string) testNode { return openNodeAt(t, url, 0) }

// openNodeAt is openNode with a clock that began a while ago.
func openNodeAt(t testing.TB, url string, ago time.Duration) testNode {
	t.Helper()
	began := time.Now().Add(-ago)
	log := &upstreamtest.Buffer{}
	s, err := OpenShared(url, func() time.Duration { return time.Since(began) }, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return testNode{s, log, new(atomic.Bool)}
}

func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// TestSharedKeys: what one node changes holds on the others.
func TestSharedKeys(t *testing.T) {
	redis := upstreamtest.StartRedis(t)
	a, b := openNode(t, redis.URL()), openNode(t, redis.URL())
	made, secret := create(t, a.Store, Spec{Name: "x", Limits: Limits{Requests: ptr(int64(5))}})
	eventually(t, "the key is known there", func() bool { return b.Lookup([]byte(secret)) != nil })
	if _, err := b.Update(made.ID, func(s *Spec) error { s.Name = "y"; return nil }); err != nil {
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
	made, _ = create(t, a.Store, Spec{Name: "0"})
	eventually(t, "it is known there", func() bool { return b.Count() == 1 })
	var changes, refused atomic.Int64
	var wg sync.WaitGroup
	for _, n := range []testNode{a, b} {
		wg.Go(func() {
			for range 50 {
				_, err := n.Update(made.ID, func(s *Spec) error { s.Name += "+"; return nil })
				if err == nil {
					changes.Add(1)
				} else {
					refused.Add(1)
					_ = n.shared.sync(context.Background())
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

// admitted is how many of the decisions of nodes, as fast as they can, were admissions, and when.
type admissions struct {
	mu  sync.Mutex
	at  []time.Time
	per []int
}

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
					if _, ok, _ := k.Admit(n.now()); ok {
						a.mu.Lock()
						a.at = append(a.at, before)
						a.per[i]++
						a.mu.Unlock()
					} else {
						time.Sleep(200 * time.Microsecond)
					}
				}
			})
		}
	}
	wg.Wait()
}

// most is how many admissions the fullest interval of length period has.
func (a *admissions) most(period time.Duration) (most int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	at := a.at
	// Those of several goroutines are not quite in order.
	for i := 1; i < len(at); i++ {
		for j := i; j > 0 && at[j].Before(at[j-1]); j-- {
			at[j], at[j-1] = at[j-1], at[j]
		}
	}
	first := 0
	for i := range at {
		for at[i].Sub(at[first]) > period {
			first++
		}
		most = max(most, i-first+1)
	}
	return most
}

// TestSharedLimit: over any period all nodes together admit no more than the limit, and one busy one
// gets nearly all of it.
func TestSharedLimit(t *testing.T) {
	t.Parallel()
	redis := upstreamtest.StartRedis(t)
	const limit, period = 500, time.Second
	for _, count := range []int{1, 3} {
		var nodes []testNode
		for range count {
			nodes = append(nodes, openNode(t, redis.URL()))
		}
		made, _ := create(t, nodes[0].Store, Spec{Name: fmt.Sprint(count), Limits: Limits{Requests: ptr(int64(limit)), Period: ptr(Period(period))}})
		for _, n := range nodes {
			eventually(t, "the key is known", func() bool { _, err := n.Get(made.ID); return err == nil })
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*period+period/2)
		var a admissions
		a.drive(ctx, nodes, made.ID)
		cancel()
		if most := a.most(period); most > limit {
			t.Errorf("%d nodes: %d admissions in a period, the limit is %d", count, most, limit)
		}
		least := 5 * limit * 95 / 100
		if len(a.at) < least {
			t.Errorf("%d nodes: %d admissions in five periods and a half, less than %d: %v", count, len(a.at), least, a.per)
		}
		t.Logf("%d nodes: %d in 5.5 periods, most %d, %v", count, len(a.at), a.most(period), a.per)
	}
}

// TestOneBusyNode: a node that always asks gets at least 95% of a limit.
func TestOneBusyNode(t *testing.T) {
	t.Parallel()
	redis := upstreamtest.StartRedis(t)
	n := openNode(t, redis.URL())
	const limit, period, cycles = 200, 4 * time.Second, 2
	made, _ := create(t, n.Store, Spec{Name: "x", Limits: Limits{Requests: ptr(int64(limit)), Period: ptr(Period(period))}})
	k, _ := n.Get(made.ID)
	var first time.Time
	for admitted := 0; admitted <= cycles*limit; {
		if _, ok, _ := k.Admit(n.now()); !ok {
			time.Sleep(time.Millisecond)
			continue
		}
		if admitted++; admitted == 1 {
			first = time.Now()
		}
	}
	if share := float64(cycles*period) / float64(time.Since(first)); share < 0.95 || share > 1 {
		t.Errorf("it gets %.3f of the limit", share)
	} else {
		t.Logf("it gets %.3f of the limit", share)
	}
}

// TestSharedTokens: what is reserved and not used comes back, and together the nodes use no more than the limit.
func TestSharedTokens(t *testing.T) {
	t.Parallel()
	redis := upstreamtest.StartRedis(t)
	const limit, period, reserved, used = 2000, time.Second, 40, 10
	var nodes []testNode
	for range 3 {
		nodes = append(nodes, openNode(t, redis.URL()))
	}
	made, _ := create(t, nodes[0].Store, Spec{Name: "x", Limits: Limits{Tokens: ptr(int64(limit)), Period: ptr(Period(period))}})
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
					c, _, ok, _ := k.Reserve(n.now(), reserved)
					if !ok {
						time.Sleep(time.Millisecond)
						continue
					}
					time.Sleep(10 * time.Millisecond)
					c.Settle(n.now(), used)
					a.mu.Lock()
					a.at = append(a.at, before)
					a.mu.Unlock()
				}
			})
		}
	}
	time.Sleep(5 * period)
	cancel()
	wg.Wait()
	most, all := a.most(period)*used, len(a.at)*used
	if most > limit || all < 5*limit*6/10 {
		t.Errorf("%d tokens in a period and %d in five, the limit is %d", most, all, limit)
	}
	for _, n := range nodes {
		k, _ := n.Get(made.ID)
		if k.Unsettled() != 0 {
			t.Errorf("%d charges to settle", k.Unsettled())
		}
	}
	t.Logf("%d in five periods, %d in one", all, most)
}

// TestSharedFaults: whatever becomes of Redis, or of a node, over any period no more is admitted than the
// limit, and when it is over all is as before.
func TestSharedFaults(t *testing.T) {
	const limit, period = 300, time.Second
	for _, test := range []struct {
		name string
		lag  time.Duration // of each node's clock
		do   func(t *testing.T, redis *upstreamtest.Redis, nodes []testNode)
		cut  bool // for longer than it takes to be missed
	}{
		{name: "Redis is killed", cut: true, do: func(t *testing.T, redis *upstreamtest.Redis, nodes []testNode) {
			redis.Kill()
			eventually(t, "all have noticed", func() bool {
				for _, n := range nodes {
					if s, _ := n.Sharing(); s.Answers {
						return false
					}
				}
				return true
			})
			if _, _, err := nodes[0].Create(Spec{Name: "y"}); !errors.Is(err, ErrUnavailable) {
				t.Errorf("a key is made: %v", err)
			}
			time.Sleep(3 * period) // one without any, then the nodes' own parts
			redis.Start()
		}},
		{name: "Redis is killed for a moment", do: func(t *testing.T, redis *upstreamtest.Redis, _ []testNode) {
			redis.Kill()
			redis.Start()
		}},
		{name: "Redis is stopped", cut: true, do: func(t *testing.T, redis *upstreamtest.Redis, _ []testNode) {
			redis.Signal(syscall.SIGSTOP)
			time.Sleep(3 * period)
			redis.Signal(syscall.SIGCONT)
		}},
		{name: "Redis is emptied", do: func(t *testing.T, redis *upstreamtest.Redis, _ []testNode) { redis.Command("FLUSHALL") }},
		{name: "a node ends with leases", do: func(t *testing.T, _ *upstreamtest.Redis, nodes []testNode) {
			nodes[2].dead.Store(true)
			nodes[2].shared.stop() // no word more
		}},
		{name: "clocks differ by a minute", lag: time.Minute, do: func(*testing.T, *upstreamtest.Redis, []testNode) {}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			redis := upstreamtest.StartRedis(t)
			var nodes []testNode
			for i := range 3 {
				nodes = append(nodes, openNodeAt(t, redis.URL(), time.Duration(i)*test.lag))
			}
			made, secret := create(t, nodes[0].Store, Spec{Name: "x", Limits: Limits{Requests: ptr(int64(limit)), Period: ptr(Period(period))}})
			for _, n := range nodes {
				eventually(t, "the key is known, and the others", func() bool {
					_, err := n.Get(made.ID)
					s, _ := n.Sharing()
					return err == nil && s.Nodes == 3
				})
			}
			ctx, cancel := context.WithCancel(context.Background())
			var a admissions
			done := make(chan struct{})
			go func() { defer close(done); a.drive(ctx, nodes, made.ID) }()
			time.Sleep(2 * period)
			before := a.count()
			test.do(t, redis, nodes)
			alone := a.count() - before
			eventually(t, "all nodes hear of it again", func() bool {
				for _, n := range nodes[:2] {
					if s, _ := n.Sharing(); !s.Answers || s.Silent > 2*beatEvery {
						return false
					}
				}
				return true
			})
			time.Sleep(settleTime + period)
			after := a.count()
			time.Sleep(3 * period)
			after = a.count() - after
			cancel()
			<-done
			if most := a.most(period); most > limit {
				t.Errorf("%d admissions in a period, the limit is %d", most, limit)
			}
			if after < 2*limit*9/10 {
				t.Errorf("after it %d admissions in three periods", after)
			}
			if test.cut && (alone == 0 || alone > 4*limit) {
				t.Errorf("%d admissions without Redis", alone)
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
			t.Logf("%d before, %d meanwhile, %d after, most %d, %v", before, alone, after, a.most(period), a.per)
		})
	}
}

func (a *admissions) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.at)
}

// BenchmarkLease is what Redis takes for one lease, with many asked for at once, of many keys.
func BenchmarkLease(b *testing.B) {
	redis := upstreamtest.StartRedis(b)
	n := openNode(b, redis.URL())
	var next atomic.Int64
	b.SetParallelism(64)
	b.RunParallel(func(pb *testing.PB) {
		s := n.shared.leases.share(ofRequests, fmt.Sprint(next.Add(1)))
		for pb.Next() {
			s.mu.Lock()
			if _, err := s.send(context.Background(), window{time.Minute, 1_000_000_000}, 1, 10); err != nil {
				b.Error(err)
			}
			s.mu.Unlock()
		}
	})
}

// BenchmarkTake is what a request costs while its node has a lease.
func BenchmarkTake(b *testing.B) {
	redis := upstreamtest.StartRedis(b)
	n := openNode(b, redis.URL())
	made, _ := create(b, n.Store, Spec{Name: "x", Limits: Limits{Requests: ptr(int64(1_000_000_000)), Period: ptr(Period(time.Hour))}})
	k, _ := n.Get(made.ID)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, ok, _ := k.Admit(n.now()); !ok {
				b.Fatal("refused")
			}
		}
	})
}
