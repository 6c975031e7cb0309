package limiter

import (
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"sluice/internal/upstreamtest"
)

// reference remembers every admission.
type reference struct{ times []time.Duration }

// since counts the admissions at or after t.
func (r *reference) since(t time.Duration) int64 {
	older, _ := slices.BinarySearch(r.times, t) // they are in order
	return int64(len(r.times) - older)
}

// schedules is how many of n random schedules are tried. One goroutine runs them, so the race detector
// has nothing to find and only makes each atomic step many times slower: make test runs them all without it.
func schedules(n int) int {
	if upstreamtest.RaceDetector || testing.Short() {
		return n / 10
	}
	return n
}

func TestWindowAgainstReference(t *testing.T) {
	decisions := 0
	for seed := range schedules(600) {
		rnd := rand.New(rand.NewPCG(uint64(seed), 1))
		limit := 1 + rnd.Int64N(60)
		period := time.Second + time.Duration(rnd.Int64N(int64(3*time.Second)))
		clock := time.Duration(rnd.Int64N(int64(time.Hour)))
		now := clock // the latest the window has seen
		w := NewWindow(limit, period, now, 0)
		var ref reference
		for range 5000 {
			decisions++
			// Bursts, steady trickles, idle gaps longer than the ring, and a clock
			// that now and then reads a little earlier than before.
			switch rnd.IntN(20) {
			case 0:
				clock += time.Duration(rnd.Int64N(int64(2 * period)))
			case 1, 2, 3, 4, 5, 6:
				clock += time.Duration(rnd.Int64N(int64(period) / limit))
			case 7:
				clock += period / subWindows
			}
			asked := clock
			if rnd.IntN(10) == 0 {
				asked = max(0, clock-time.Duration(rnd.Int64N(int64(period))))
			}
			now = max(now, asked)
			before, err := w.Peek(asked)
			if err != nil {
				t.Fatal(err)
			}
			s, ok, err := w.Allow(asked)
			if err != nil {
				t.Fatal(err)
			}
			inPeriod := ref.since(now - period)
			remembered := ref.since(now - (subWindows+1)*w.width + 1)
			switch {
			case ok && inPeriod >= limit:
				t.Fatalf("seed %d: admitted at %v with %d of %d in the last %v", seed, now, inPeriod, limit, period)
			case !ok && remembered < limit:
				t.Fatalf("seed %d: refused at %v with %d of %d remembered", seed, now, remembered, limit)
			case ok != (before.Remaining > 0):
				t.Fatalf("seed %d: Peek said %d left, Allow said %v", seed, before.Remaining, ok)
			case ok && s.Remaining != before.Remaining-1, !ok && s != before:
				t.Fatalf("seed %d: before %+v, after %+v, admitted %v", seed, before, s, ok)
			case ok && s.RetryAfter != 0:
				t.Fatalf("seed %d: admitted with RetryAfter %v", seed, s.RetryAfter)
			}
			if ok {
				ref.times = append(ref.times, now)
			}
			if rnd.IntN(32) == 0 {
				checkPromises(t, w, asked, s)
			}
		}
	}
	t.Logf("%d decisions", decisions)
}

// checkPromises asks the Window about the future it has promised. Peek writes marks,
// so it asks a copy.
func checkPromises(t *testing.T, w *Window, now time.Duration, s State) {
	t.Helper()
	at := func(then time.Duration) State {
		c := &Window{period: w.period, grid: w.grid}
		c.limit.Store(w.limit.Load())
		c.word.Store(w.word.Load())
		for i := range w.marks {
			c.marks[i].Store(w.marks[i].Load())
		}
		got, err := c.Peek(then)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if s.RetryAfter > 0 {
		if got := at(now + s.RetryAfter); got.Remaining == 0 {
			t.Fatalf("nothing is left %v later, as promised: %+v", s.RetryAfter, got)
		}
		if got := at(now + s.RetryAfter - 1); got.Remaining != 0 {
			t.Fatalf("%d left already a nanosecond before RetryAfter %v", got.Remaining, s.RetryAfter)
		}
	}
	if s.Remaining < s.Limit {
		if got := at(now + s.Reset); got.Remaining != s.Limit {
			t.Fatalf("%v later %d of %d are left, all were promised", s.Reset, got.Remaining, s.Limit)
		}
		if got := at(now + s.Reset - 1); got.Remaining == s.Limit {
			t.Fatalf("all are left already a nanosecond before Reset %v", s.Reset)
		}
	}
}

// TestWindowConcurrent lets goroutines race with clocks that disagree and counts, per
// instant of the shared clock, what was admitted.
func TestWindowConcurrent(t *testing.T) {
	const (
		limit   = 500
		period  = time.Second
		workers = 8
	)
	w := NewWindow(limit, period, 0, 0)
	var clock atomic.Int64
	var mu sync.Mutex
	var admitted []time.Duration // decision times, at the latest the shared clock before the call
	var wg sync.WaitGroup
	for i := range workers {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(i), 2))
			var mine []time.Duration
			for range 40_000 {
				now := time.Duration(clock.Add(rnd.Int64N(200_000)))
				_, ok, err := w.Allow(now)
				if err != nil {
					t.Error(err)
					return
				}
				if ok {
					// The decision lies between now and this reading.
					mine = append(mine, time.Duration(clock.Load()))
				}
			}
			mu.Lock()
			admitted = append(admitted, mine...)
			mu.Unlock()
		})
	}
	wg.Wait()
	elapsed := time.Duration(clock.Load())
	// Over the whole run no more than limit per period can have been let in; the
	// strict side may cost 1/63, and only scheduling can cost more.
	most := int64(elapsed/period+1) * limit
	if int64(len(admitted)) > most {
		t.Fatalf("%d admitted in %v, at most %d were allowed", len(admitted), elapsed, most)
	}
	if least := int64(elapsed/period) * limit * 90 / 100; int64(len(admitted)) < least {
		t.Errorf("%d admitted in %v, %d are owed", len(admitted), elapsed, least)
	}
}

// TestWindowConcurrentInstant has every goroutine ask at the same instants, where the
// count of what is let in must be exact.
func TestWindowConcurrentInstant(t *testing.T) {
	const limit, workers = 100, 8
	w := NewWindow(limit, time.Second, 0, 0)
	for round := range 50 {
		now := time.Duration(round) * 2 * time.Second
		var n atomic.Int64
		var wg sync.WaitGroup
		for range workers {
			wg.Go(func() {
				for range limit {
					if _, ok, _ := w.Allow(now); ok {
						n.Add(1)
					}
				}
			})
		}
		wg.Wait()
		if n.Load() != limit {
			t.Fatalf("round %d: %d admitted, want exactly %d", round, n.Load(), limit)
		}
	}
}

func TestWindowStraddlesSubWindows(t *testing.T) {
	// One goroutine is refused at a later sub-window than another, stale one asks in:
	// the stale one must neither loop nor be let in.
	w := NewWindow(1, time.Second, 0, 0)
	if _, ok, _ := w.Allow(0); !ok {
		t.Fatal("the first was refused")
	}
	if _, ok, _ := w.Allow(w.width); ok {
		t.Fatal("a second was admitted within the period")
	}
	if _, ok, _ := w.Allow(0); ok {
		t.Fatal("a stale second was admitted within the period")
	}
}

func TestWindowFreezeCarriesOver(t *testing.T) {
	w := NewWindow(5, time.Second, 0, 0)
	for range 3 {
		w.Allow(0)
	}
	used, from := w.Freeze(0)
	if used != 3 || from != w.width {
		t.Fatalf("Freeze returned %d from %v, want 3 from the end of the sub-window", used, from)
	}
	if _, _, err := w.Allow(0); !errors.Is(err, ErrFrozen) {
		t.Fatalf("Allow on a frozen window: %v", err)
	}
	if _, err := w.Peek(0); !errors.Is(err, ErrFrozen) {
		t.Fatalf("Peek on a frozen window: %v", err)
	}
	next := NewWindow(4, time.Minute, from, used)
	if _, ok, _ := next.Allow(0); !ok {
		t.Fatal("the fourth of four was refused")
	}
	if _, ok, _ := next.Allow(time.Minute); ok {
		t.Fatal("a fifth of four was admitted within the minute")
	}
}

// TestWindowFreezeConcurrent replaces the window while goroutines ask: what both admit
// together stays within the limit.
func TestWindowFreezeConcurrent(t *testing.T) {
	const limit = 1000
	for range 50 {
		var current atomic.Pointer[Window]
		current.Store(NewWindow(limit, time.Second, 0, 0))
		var n atomic.Int64
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range limit {
					_, ok, err := current.Load().Allow(0)
					for errors.Is(err, ErrFrozen) {
						_, ok, err = current.Load().Allow(0)
					}
					if ok {
						n.Add(1)
					}
				}
			})
		}
		wg.Go(func() {
			old := current.Load()
			used, from := old.Freeze(0)
			current.Store(NewWindow(limit, time.Minute, from, used))
		})
		wg.Wait()
		if n.Load() != limit {
			t.Fatalf("%d admitted by both windows together, want exactly %d", n.Load(), limit)
		}
	}
}

// TestWindowFreezeKeepsTheTime: what was admitted after the clock of Freeze was read is
// not dated before it.
func TestWindowFreezeKeepsTheTime(t *testing.T) {
	const limit = 10
	old := NewWindow(limit, time.Second, 0, 0)
	for range limit {
		if _, ok, _ := old.Allow(500 * time.Millisecond); !ok {
			t.Fatal("refused below the limit")
		}
	}
	used, from := old.Freeze(0)
	next := NewWindow(limit, 2*time.Second, from, used)
	if s, ok, _ := next.Allow(2500 * time.Millisecond); ok {
		t.Errorf("one more was admitted two seconds after the last of %d: %+v", limit, s)
	}
}

// TestWindowMarkAhead: a mark written by a goroutine that stalled before it could say so
// neither holds others up nor lets more in.
func TestWindowMarkAhead(t *testing.T) {
	w := NewWindow(1, time.Second, 0, 0)
	if _, ok, _ := w.Allow(0); !ok {
		t.Fatal("the first was refused")
	}
	n, count := unpack(w.word.Load())
	w.marks[(n+100)&ringMask].Store(pack(n+100, count))
	if s, _, _ := w.Allow(0); s.Limit != 1 {
		t.Errorf("%+v", s)
	}
	if _, err := w.Peek(0); err != nil {
		t.Error(err)
	}
}

func TestWindowSetLimit(t *testing.T) {
	w := NewWindow(1, time.Second, 0, 0)
	w.Allow(0)
	w.SetLimit(2)
	if _, ok, _ := w.Allow(0); !ok {
		t.Fatal("refused below a raised limit")
	}
	w.SetLimit(1)
	if s, ok, _ := w.Allow(0); ok || s.Remaining != 0 {
		t.Fatalf("admitted above a lowered limit: %+v", s)
	}
}

func TestWindowSizeIsAsDocumented(t *testing.T) {
	if size := unsafe.Sizeof(Window{}); size > 560 {
		t.Errorf("a Window takes %d bytes, the package says 560", size)
	}
}

func TestAllowDoesNotAllocate(t *testing.T) {
	w := NewWindow(10, time.Second, 0, 0)
	var g Gate
	now := time.Duration(0)
	if n := testing.AllocsPerRun(1000, func() {
		now += time.Millisecond
		_, _, _ = w.Allow(now)
		_, _ = w.Peek(now)
		if g.Enter() {
			g.Leave()
		}
	}); n != 0 {
		t.Errorf("%v allocations per decision", n)
	}
}

func BenchmarkAllow(b *testing.B) {
	w := NewWindow(MaxLimit, time.Second, 0, 0)
	start := time.Now()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			_, _, _ = w.Allow(time.Since(start))
		}
	})
}

func BenchmarkAllowOwnKey(b *testing.B) {
	start := time.Now()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		w := NewWindow(MaxLimit, time.Second, 0, 0)
		for pb.Next() {
			_, _, _ = w.Allow(time.Since(start))
		}
	})
}

func BenchmarkRefuse(b *testing.B) {
	w := NewWindow(1, time.Hour, 0, 1)
	b.ReportAllocs()
	for b.Loop() {
		_, _, _ = w.Allow(time.Second)
	}
}
