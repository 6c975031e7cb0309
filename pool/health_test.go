package pool

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const sec = time.Second

// TestTally counts along a walk through time and holds the sums against all that was counted.
func TestTally(t *testing.T) {
	var c tally
	type one struct {
		at   time.Duration
		some bool
	}
	var all []one
	now := time.Duration(0)
	for range 20_000 {
		now += time.Duration(rand.Int64N(int64(20 * time.Millisecond)))
		if rand.IntN(500) == 0 {
			now += time.Duration(rand.Int64N(int64(40 * sec)))
		}
		o := one{now, rand.IntN(3) == 0}
		all = append(all, o)
		c.add(now, map[bool]uint64{false: tallyOne, true: tallySome}[o.some])
		count := func(within time.Duration) (n, some int) {
			for i := len(all) - 1; i >= 0 && now-all[i].at < within; i-- {
				n++
				if all[i].some {
					some++
				}
			}
			return n, some
		}
		// No more than ten seconds, and no less than nine and a half; and the other way about.
		for _, w := range []struct {
			n           uint64
			least, most time.Duration
		}{{atMost, 10*sec - tallyWidth, 10 * sec}, {atLeast, 10 * sec, 10*sec + tallyWidth}} {
			n, some := c.sum(now, w.n)
			leastN, leastSome := count(w.least)
			mostN, mostSome := count(w.most)
			if n < leastN || n > mostN || some < leastSome || some > mostSome {
				t.Fatalf("at %v: %d and %d of it; there were %d to %d, and %d to %d", now, n, some, leastN, mostN, leastSome, mostSome)
			}
		}
	}
}

func TestTallyIsBounded(t *testing.T) {
	var c tally
	c.slots[tallyNumber(0)%32].Store(tallyNumber(0)<<numberBit | tallyMask - 1)
	for range 5 {
		c.add(0, tallyOne)
	}
	if all, some := c.sum(0, atMost); all != tallyMask || some != 0 {
		t.Errorf("%d, %d", all, some)
	}
}

// TestBudget: whenever a retry is allowed, no more than a fifth of what was sent in the ten
// seconds before is retries, or it is one of ten.
func TestBudget(t *testing.T) {
	var b budget
	var retried, sent []time.Duration
	now, most := time.Duration(0), 0.0
	within := func(list []time.Duration) (n int) {
		for i := len(list) - 1; i >= 0 && now-list[i] < 10*sec; i-- {
			n++
		}
		return n
	}
	for range 20_000 {
		now += time.Duration(rand.Int64N(int64(10 * time.Millisecond)))
		if rand.IntN(2000) == 0 {
			now += 8 * sec // a lull, after which few have been sent
		}
		b.sent.add(now, tallyOne)
		sent = append(sent, now)
		left := b.left(now)
		if left != b.take(now) {
			t.Fatal("left and take do not agree")
		}
		if !left {
			continue
		}
		b.sent.add(now, tallyOne)
		sent, retried = append(sent, now), append(retried, now)
		r, s := within(retried), within(sent)
		if r > retryFloor && retryPart*r > s {
			t.Fatalf("at %v: %d of %d in ten seconds are retries", now, r, s)
		}
		if s > 1000 {
			most = max(most, float64(r)/float64(s))
		}
	}
	if most < 0.18 {
		t.Errorf("of a busy upstream's requests at most %.1f%% could be retries", 100*most)
	}
}

func TestBudgetUnderConcurrency(t *testing.T) {
	var b budget
	for range 500 {
		b.sent.add(0, tallyOne)
	}
	var taken atomic.Int64
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			for range 50 {
				if b.take(0) {
					taken.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if n := taken.Load(); n != 100 {
		t.Errorf("%d retries for 500 requests", n)
	}
}

// model makes a model m that has these targets (each an upstream of its own).
func model(t *testing.T, targets ...string) *Model {
	t.Helper()
	upstreams, list := "", ""
	for i, target := range targets {
		upstreams += fmt.Sprintf("  u%d: {base_url: \"http://u%d/v1\"}\n", i, i)
		list += fmt.Sprintf("{upstream: u%d%s}, ", i, target)
	}
	p := empty()
	s := p.Build(load(t, "breaker: {failures: 3, pause: 1s}\nupstreams:\n"+upstreams+"models: {m: {targets: ["+list+"]}}\n"))
	p.Adopt(s)
	return s.Models["m"]
}

func TestBreaker(t *testing.T) {
	const (
		ok      = "served"
		fail    = "failed"
		neither = "unknown"
		closed  = "closed"
		half    = "half_open"
		open    = "open"
	)
	outcomes := map[string]Outcome{ok: Served, fail: Failed, neither: Unknown}
	many := func(n int, s ...string) (all []string) {
		for range n {
			all = append(all, s...)
		}
		return all
	}
	type step struct {
		after time.Duration // since the step before
		ends  []string      // attempts that begin and end, one after the other, as far as they are let
		want  string
	}
	for name, steps := range map[string][]step{
		"a row of failures":             {{0, many(2, fail), closed}, {0, many(1, fail), open}, {sec - 1, nil, open}, {1, nil, half}},
		"a success in between":          {{0, many(2, fail), closed}, {0, many(1, ok, fail, fail), closed}, {0, many(1, fail), open}},
		"what says nothing is no break": {{0, many(1, fail, neither, fail), closed}, {0, many(1, fail), open}},
		"half of twenty":                {{0, many(9, fail, ok), closed}, {0, many(1, ok), closed}, {9 * sec, many(1, fail), open}},
		"half of nineteen":              {{0, many(9, ok, fail), closed}, {0, many(1, fail), closed}},
		"less than half":                {{0, many(20, ok, ok, fail), closed}},
		"half of twenty, but long ago":  {{0, many(9, ok, fail), closed}, {10 * sec, many(1, ok, fail), closed}},
		"the probe succeeds":            {{0, many(3, fail), open}, {sec, many(1, ok), closed}, {0, many(2, fail), closed}, {0, many(1, fail), open}, {sec, nil, half}},
		"the ratio begins anew":         {{0, many(9, ok, fail), closed}, {0, many(2, fail), open}, {sec, many(1, ok), closed}, {0, many(2, fail), closed}},
		"the probe is cut short":        {{0, many(3, fail), open}, {sec, many(1, neither), half}, {0, many(1, ok), closed}},
		"the pause doubles to half a minute": {{0, many(3, fail), open}, {sec, many(1, fail), open}, {2*sec - 1, nil, open}, {1, many(1, fail), open},
			{4 * sec, many(1, fail), open}, {8 * sec, many(1, fail), open}, {16 * sec, many(1, fail), open}, {30*sec - 1, nil, open}, {1, many(1, fail), open},
			{30*sec - 1, nil, open}, {1, many(1, ok), closed}, {0, many(3, fail), open}, {sec, nil, half}},
	} {
		t.Run(name, func(t *testing.T) {
			target := model(t, "").Targets[0]
			now := time.Duration(0)
			for i, s := range steps {
				now += s.after
				for _, end := range s.ends {
					if p, entered := target.Enter(now); entered {
						target.Leave(now, p, outcomes[end])
					}
				}
				if got := target.health.breaker.state(now).String(); got != s.want {
					t.Fatalf("step %d: %s, want %s", i, got, s.want)
				}
			}
			if n := target.load(); n != 0 {
				t.Errorf("%d in flight", n)
			}
		})
	}
}

func TestOneProbe(t *testing.T) {
	target := model(t, "").Targets[0]
	var late []Place // attempts that end when the breaker has opened
	for range 6 {
		p, _ := target.Enter(0)
		late = append(late, p)
	}
	for range 3 {
		p, _ := target.Enter(0)
		target.Leave(0, p, Failed)
	}
	target.Leave(0, late[0], Served)
	if target.Leave(sec-1, late[1], Failed); target.Closed(0) || target.health.servesIn(0) != sec {
		t.Error("attempts from before the pause have changed it")
	}
	var probes, entered atomic.Int64
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			for range 50 {
				if p, ok := target.Enter(sec); ok {
					entered.Add(1)
					if p.probe {
						probes.Add(1)
					}
				}
			}
		})
	}
	wg.Wait()
	if probes.Load() != 1 || entered.Load() != 1 {
		t.Fatalf("%d entered, %d as probes", entered.Load(), probes.Load())
	}
	probe := target.Answered(2*sec, Place{at: sec, probe: true})
	for range 4 {
		target.Leave(2*sec, late[len(late)-1], Failed)
	}
	if !target.Closed(2 * sec) {
		t.Error("a probe that was answered leaves it open, or what began before it has opened it again")
	}
	target.Leave(2*sec, probe, Failed) // its stream broke off: a failure like any other
	if !target.Closed(2*sec) || target.health.breaker.row.Load() != 1 || target.load() != 0 {
		t.Errorf("%d failures in a row, %d in flight", target.health.breaker.row.Load(), target.load())
	}
}

func TestLongPause(t *testing.T) {
	target := model(t, "").Targets[0]
	target.rule.pause = 40 * sec
	now := time.Duration(0)
	for range 3 {
		p, _ := target.Enter(now)
		target.Leave(now, p, Failed)
	}
	for range 3 { // it is longer than what pauses grow to
		if now += 40*sec - 1; target.serves(now) {
			t.Error("it serves too soon")
		}
		now++
		p, ok := target.Enter(now)
		if target.Leave(now, p, Failed); !ok {
			t.Error("it does not serve")
		}
	}
}

// TestConcurrentProbes: many enter and leave at once, whatever the outcomes; never are two
// probes under way, and no place is left behind.
func TestConcurrentProbes(t *testing.T) {
	target := model(t, "").Targets[0]
	var clock, probing atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20_000 {
				now := time.Duration(clock.Add(int64(time.Millisecond)))
				p, ok := target.Enter(now)
				if !ok {
					continue
				}
				if p.probe && probing.Add(1) != 1 {
					t.Error("two probes at once")
				}
				runtime.Gosched()
				if p.probe {
					probing.Add(-1)
				}
				target.Leave(now, p, Outcome(rand.IntN(3)))
			}
		})
	}
	wg.Wait()
	if n := target.load(); n != 0 {
		t.Errorf("%d in flight", n)
	}
	if !target.serves(time.Duration(clock.Load()) + time.Hour) {
		t.Error("it is shut for ever")
	}
}

func TestRest(t *testing.T) {
	any := func(*Target) bool { return true }
	m := model(t, "")
	target := m.Targets[0]
	target.Rest(0, 5*sec)
	target.Rest(0, sec) // an earlier end changes nothing
	if two := model(t, "", ""); two.Rested(0, any) != two.Targets[0] {
		t.Error("of two that serve, the first rests no longer")
	} else if two.Targets[0].Rest(0, sec); two.Rested(0, any) != two.Targets[1] || two.ServesIn(0) != 0 {
		t.Error("the one that does not rest is the soonest")
	} else if two.Targets[1].Rest(0, 2*sec); two.Rested(0, any) != two.Targets[0] || two.ServesIn(0) != sec {
		t.Error("the one that rests for less is the soonest")
	}
	if _, ok := target.Enter(5*sec - 1); ok || m.Pick(5*sec-1, nil) != nil || m.ServesIn(sec) != 4*sec {
		t.Errorf("it does not rest: serves in %v", m.ServesIn(sec))
	}
	if _, ok := target.Enter(5 * sec); !ok || m.Pick(5*sec, nil) != target || m.ServesIn(5*sec) != 0 {
		t.Error("it still rests")
	}
	target.Rest(0, 1<<62)
	if d := m.ServesIn(0); d != LongestRest {
		t.Errorf("it rests for %v", d)
	}
}

// TestRestingIsTried: whoever comes, one of them a second is let through.
func TestRestingIsTried(t *testing.T) {
	m := model(t, "", "")
	for _, target := range m.Targets {
		target.Rest(0, 5*sec)
	}
	m.Targets[1].Rest(0, 9*sec)
	if m.Resting(sec-1) != nil || m.Resting(sec) != m.Targets[0] || m.Resting(5*sec) != m.Targets[1] || m.Resting(9*sec) != nil {
		t.Error("not the one that rests for the shortest time, from a second on")
	}
	var entered atomic.Int64
	var places [8]Place
	var wg sync.WaitGroup
	for i := range places {
		wg.Go(func() {
			for range 50 {
				if p, ok := m.Targets[0].EnterResting(sec); ok {
					entered.Add(1)
					places[i] = p
				}
			}
		})
	}
	wg.Wait()
	if entered.Load() != 1 || m.Targets[0].load() != 1 || m.Resting(2*sec-1) != m.Targets[1] || m.Resting(2*sec) != m.Targets[0] {
		t.Fatalf("%d entered in one second, %d are in flight", entered.Load(), m.Targets[0].load())
	}
	for _, p := range places {
		if p.rest != 0 {
			m.Targets[0].Leave(sec, m.Targets[0].Answered(sec, p), Served)
		}
	}
	if m.Targets[0].Rests(sec) != 0 || m.Targets[0].load() != 0 {
		t.Error("an answer does not end the rest")
	}
	late, _ := m.Targets[1].EnterResting(sec)
	m.Targets[1].Rest(sec, 20*sec)
	if m.Targets[1].Leave(sec, late, Served); m.Targets[1].Rests(sec) != 20*sec {
		t.Error("an answer has ended a rest that began after it was asked for")
	}
}

// picks is how often each target is picked of 40,000, give or take five standard deviations.
func picks(m *Model, now time.Duration, rank func(*Target) int) map[string]int {
	n := map[string]int{}
	for range 40_000 {
		if t := m.Pick(now, rank); t != nil {
			n[t.Upstream.Name]++
		}
	}
	return n
}

func TestPick(t *testing.T) {
	around := func(name string, got, want int) {
		t.Helper()
		if got < want-500 || got > want+500 || want == 0 && got != 0 {
			t.Errorf("%s was picked %d times of 40,000, want about %d", name, got, want)
		}
	}
	m := model(t, ", weight: 3", "")
	n := picks(m, 0, nil)
	around("three of four", n["u0"], 30_000)

	// Of two draws the less loaded wins, for its weight: u0 has three in flight and u1 two.
	for range 3 {
		m.Targets[0].Enter(0)
	}
	m.Targets[1].Enter(0)
	around("as loaded as the other", picks(m, 0, nil)["u0"], 30_000)
	m.Targets[1].Enter(0)
	n = picks(m, 0, nil)
	around("the less loaded", n["u0"], 37_500) // all but one in four squared
	m.Targets[0].Enter(0)
	for range 3 {
		m.Targets[0].Enter(0)
	}
	around("the more loaded", picks(m, 0, nil)["u0"], 22_500) // three in four squared

	// Who does not serve is passed over.
	m = model(t, "", "", "")
	m.Targets[1].Rest(0, sec)
	n = picks(m, 0, nil)
	around("u0 of two", n["u0"], 20_000)
	around("the one that rests", n["u1"], 0)
	m.Targets[0].Rest(0, sec)
	around("the only one", picks(m, 0, nil)["u2"], 40_000)
	m.Targets[2].Rest(0, sec)
	if m.Pick(0, nil) != nil {
		t.Error("one that rests was picked")
	}

	// The lowest rank goes first.
	n = picks(m, sec, func(t *Target) int { return map[string]int{"u0": 2, "u1": 1, "u2": 1}[t.Upstream.Name] })
	around("a high rank", n["u0"], 0)
	around("a low rank", n["u1"], 20_000)
}

// TestHealthLivesOn: a reload keeps breakers, rests and budgets of what is still there.
func TestHealthLivesOn(t *testing.T) {
	const a = `
breaker: {failures: 1, pause: 1s}
upstreams: {a: {base_url: "http://a/v1"}, b: {base_url: "http://b/v1"}}
models: {m: {targets: [{upstream: a, model: x}, {upstream: b}]}, n: {targets: [{upstream: a, model: x}]}}
`
	const b = `
breaker: {failures: 2, pause: 3s}
upstreams: {a: {base_url: "http://a/other", api_key: new}, b: {base_url: "http://elsewhere/v1"}}
models: {m: {targets: [{upstream: b}, {upstream: a, model: x, weight: 9}, {upstream: a, model: y}]}}
`
	p := empty()
	build := func(text string) *Set {
		s := p.Build(load(t, text))
		p.Adopt(s)
		return s
	}
	s := build(a)
	for _, target := range s.Models["m"].Targets {
		p, _ := target.Enter(0)
		target.Leave(0, p, Failed)
	}
	s.Models["n"].Targets[0].Rest(0, sec)
	for s.Upstreams[0].Retry(0) {
	}
	s = build(b)
	m := s.Models["m"].Targets
	if m[1].Closed(0) || !m[0].Closed(0) || !m[2].Closed(0) {
		t.Error("the breaker of the target that stayed must be open, those of the new ones closed")
	}
	if s.Upstreams[0].MayRetry(0) || !s.Upstreams[1].MayRetry(0) {
		t.Error("the budget of the upstream that stayed must be spent, that of the new one not")
	}
	var shown []TargetStatus
	for _, u := range s.Upstreams {
		shown = append(shown, u.Status().Targets...)
	}
	want := []TargetStatus{{Model: "m", Target: "x", Breaker: "open", ServesIn: 1}, {Model: "m", Target: "y", Breaker: "closed"}, {Model: "m", Target: "m", Breaker: "closed"}}
	if d := cmp.Diff(want, shown, cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".breaker" }, cmp.Ignore())); d != "" {
		t.Error(d)
	}
	// What was dropped is not there again when the name comes back.
	s = build(a)
	if n := s.Models["n"].Targets[0]; n.Rests(0) != 0 {
		t.Error("a target that had gone still rests")
	}
}

func TestFallbacksOfFallbacks(t *testing.T) {
	s := empty().Build(load(t, `
upstreams: {a: {base_url: "http://a/v1"}}
models:
  one: {targets: [{upstream: a}], fallbacks: [two, four, three], max_retries: 7}
  two: {targets: [{upstream: a}], fallbacks: [three]}
  three: {targets: [{upstream: a}]}
  four: {targets: [{upstream: a}], fallbacks: [three]}
`))
	var names []string
	for _, m := range s.Models["one"].Fallbacks {
		names = append(names, m.Name)
	}
	if d := cmp.Diff([]string{"two", "three", "four"}, names); d != "" {
		t.Error(d)
	}
	var chain strings.Builder
	for i := range 50 {
		fmt.Fprintf(&chain, "  m%d: {targets: [{upstream: a}], fallbacks: [m%d]}\n", i, i+1)
	}
	long := empty().Build(load(t, "upstreams: {a: {base_url: \"http://a/v1\"}}\nmodels:\n"+chain.String()+"  m50: {targets: [{upstream: a}]}\n"))
	if n := len(long.Models["m0"].Fallbacks); n != mostFallbacks {
		t.Errorf("%d fallbacks", n)
	}
	if s.Models["one"].MaxRetries != 7 || s.Models["two"].MaxRetries != 2 {
		t.Error("retries are not the model's own, or the default")
	}
}

// BenchmarkEnterAndLeave is what health costs an attempt; with -cpu 1,2 a lock would show.
func BenchmarkEnterAndLeave(b *testing.B) {
	p := empty()
	s := p.Build(load(b, "upstreams: {a: {base_url: \"http://a/v1\"}}\nmodels: {m: {targets: [{upstream: a}]}}\n"))
	m := s.Models["m"]
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			t := m.Pick(sec, nil)
			p, _ := t.Enter(sec)
			t.Leave(sec, p, Served)
		}
	})
}

func BenchmarkPick(b *testing.B) {
	p := empty()
	s := p.Build(load(b, `
upstreams: {a: {base_url: "http://a/v1"}, b: {base_url: "http://b/v1"}, c: {base_url: "http://c/v1"}}
models: {m: {targets: [{upstream: a}, {upstream: b, weight: 3}, {upstream: c}]}}
`))
	m := s.Models["m"]
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			m.Pick(sec, nil)
		}
	})
}
