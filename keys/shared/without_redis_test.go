package shared

import (
	"context"
	"syscall"
	"testing"
	"time"

	"sluice/internal/upstreamtest"
	"sluice/keys"
)

// openSharing is openNode, whose rule without Redis is share.
func openSharing(t *testing.T, url string) testNode {
	n := openNode(t, url)
	n.HoldStrictly(false)
	return n
}

// threeSharing are three nodes that know each other and a key.
func threeSharing(t *testing.T, url string, limits keys.Limits) (nodes []testNode, id string) {
	t.Helper()
	for range 3 {
		nodes = append(nodes, openSharing(t, url))
	}
	made, _ := create(t, nodes[0].Store, keys.Spec{Name: "x", Limits: limits})
	for _, n := range nodes {
		eventually(t, "the key is known, and the others", func() bool {
			_, err := n.Get(made.ID)
			s, _ := n.Sharing()
			return err == nil && s.Nodes == 3
		})
	}
	return nodes, made.ID
}

// spend has each node admit as many as it can, at most, and returns how many that were together.
func spend(t *testing.T, nodes []testNode, id string, most int) (all int) {
	t.Helper()
	for i, n := range nodes {
		k, err := n.Get(id)
		if err != nil {
			t.Fatal(err)
		}
		for j := range most {
			state, admitted := ask(k, n.r.now())
			if !admitted {
				if state.Uncounted {
					t.Errorf("node %d: after %d requests it is not known how many are left", i, j)
				}
				break
			}
			all++
		}
	}
	return all
}

// TestADayWithoutRedis: a key with a limit a day goes on at once when Redis has gone, with even load up to the limit. When
// Redis is there again, all is counted that was spent, and once. It runs beside its own cases only: a lease that is
// answered late counts for a day.
func TestADayWithoutRedis(t *testing.T) {
	for _, test := range []struct {
		name       string
		lose, find func(*upstreamtest.Redis)
	}{
		{"killed", (*upstreamtest.Redis).Kill, (*upstreamtest.Redis).Start},
		{"stopped for long", func(r *upstreamtest.Redis) { r.Signal(syscall.SIGSTOP) }, func(r *upstreamtest.Redis) { r.Signal(syscall.SIGCONT) }},
		{"emptied", func(r *upstreamtest.Redis) { r.Command("FLUSHALL") }, func(*upstreamtest.Redis) {}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			redis := upstreamtest.StartRedis(t)
			nodes, id := threeSharing(t, redis.URL(), keys.Limits{Requests: ptr(int64(90)), Period: ptr(day)})
			if n := spend(t, nodes, id, 10); n != 30 {
				t.Fatalf("%d are admitted with Redis", n)
			}
			test.lose(redis)
			if n := spend(t, nodes, id, 12); n != 36 {
				t.Errorf("%d are admitted without Redis, want 36", n)
			}
			if test.name == "stopped for long" {
				// A new era begins. Else what was asked of it and not answered in time is still leased.
				eventually(t, "all nodes are cut off", func() bool { return silentFor(nodes, 2*quickPace.cutOff) })
			}
			test.find(redis)
			// One node gets all that is left, which is more than its part.
			k, _ := nodes[0].Get(id)
			left := 24
			defer func() {
				if t.Failed() {
					t.Logf("%d are left\n%s", left, nodes[0].log)
				}
			}()
			eventually(t, "all that is left is admitted", func() bool {
				if admit(k, nodes[0].r.now()) {
					left--
				}
				return left == 0
			})
			time.Sleep(2 * quickPace.beat) // the others hear of it too
			if n := spend(t, nodes, id, 1); n != 0 {
				t.Errorf("%d more than the limit are admitted", n)
			}
		})
	}
}

// silentFor reports whether no node has heard of Redis for that long.
func silentFor(nodes []testNode, d time.Duration) bool {
	for _, n := range nodes {
		if s, _ := n.Sharing(); s.Silent <= d {
			return false
		}
	}
	return true
}

// redisEraOpen reports whether leases are given in the era.
func redisEraOpen(t *testing.T, n testNode) bool {
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	left := n.r.client.Do(ctx, n.r.client.B().Eval().Script(
		`local t = redis.call('TIME') return redis.call('HGET', KEYS[1], 'opens') - t[1] * 1000 - math.floor(t[2] / 1000)`).
		Numkeys(1).Key(redisEra).Build())
	wait, err := left.AsInt64()
	return err == nil && wait < 0
}

// TestSharedFaultsWithShares: under load and whatever becomes of Redis, requests are admitted all the time, in no period
// twice the limit, and in the end all is as before.
func TestSharedFaultsWithShares(t *testing.T) {
	t.Parallel()
	const limit, period = 300, time.Second
	pause := func() { time.Sleep(2 * period) }
	for _, test := range []struct {
		name string
		do   func(*upstreamtest.Redis)
	}{
		{"killed", func(r *upstreamtest.Redis) { r.Kill(); pause(); r.Start() }},
		{"killed for a moment, again and again", func(r *upstreamtest.Redis) {
			for range 4 {
				r.Kill()
				r.Start()
				time.Sleep(period / 2)
			}
		}},
		{"stopped", func(r *upstreamtest.Redis) { r.Signal(syscall.SIGSTOP); pause(); r.Signal(syscall.SIGCONT) }},
		{"emptied", func(r *upstreamtest.Redis) { r.Command("FLUSHALL"); pause() }},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			redis := upstreamtest.StartRedis(t, "--appendonly", "no")
			nodes, id := threeSharing(t, redis.URL(), keys.Limits{Requests: ptr(int64(limit)), Period: ptr(keys.Period(period))})
			ctx, cancel := context.WithCancel(t.Context())
			var a admissions
			done := make(chan struct{})
			go func() { defer close(done); a.drive(ctx, nodes, id) }()
			pause()
			before := a.count()
			test.do(redis)
			if n := a.count() - before; n < limit {
				t.Errorf("%d admissions in two periods", n)
			}
			eventually(t, "leases are given again", func() bool { return redisEraOpen(t, nodes[0]) })
			before = a.count()
			time.Sleep(3 * period)
			after := a.count() - before
			cancel()
			<-done
			if most := a.all.Most(period); most >= 2*limit {
				t.Errorf("%d admissions in a period, the limit is %d", most, limit)
			}
			if after < limit {
				t.Errorf("after it %d admissions in three periods", after)
			}
			t.Logf("%d admissions, %d in three periods after it, most %d, %v", a.count(), after, a.all.Most(period), a.per)
		})
	}
}

// TestRedisTellsWhoWent: a node that ends, or dies, is known to have gone, by those who come later too.
func TestRedisTellsWhoWent(t *testing.T) {
	t.Parallel()
	redis := upstreamtest.StartRedis(t)
	a, b := openSharing(t, redis.URL()), openSharing(t, redis.URL())
	if at := a.r.roster.left.Load(); at != never {
		t.Errorf("a node has gone at %d", at)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	went := func(n testNode) bool { return n.r.roster.left.Load() != never }
	eventually(t, "it is known who went", func() bool { return went(a) })
	if c := openSharing(t, redis.URL()); !went(c) {
		t.Error("a node that comes does not hear of it")
	}
	redis.Command("HDEL", redisEra, "left")
	redis.Command("ZADD", redisNodes, "1", "dead")
	eventually(t, "it is known who died", func() bool { return went(openSharing(t, redis.URL())) })
}
