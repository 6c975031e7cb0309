package limiter

import (
	"sync"
	"sync/atomic"
	"testing"
)

func TestGateNeverHoldsMoreThanItsLimit(t *testing.T) {
	var g Gate
	g.SetLimit(3)
	var inside, most, entered atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20_000 {
				if !g.Enter() {
					continue
				}
				entered.Add(1)
				n := inside.Add(1)
				for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
				}
				inside.Add(-1)
				g.Leave()
			}
		})
	}
	wg.Wait()
	if most.Load() > 3 || entered.Load() == 0 || g.InFlight() != 0 {
		t.Errorf("most inside %d, entered %d, left behind %d", most.Load(), entered.Load(), g.InFlight())
	}
}

func TestGateTakesSeveralOrNone(t *testing.T) {
	var g Gate
	g.SetLimit(10)
	for _, step := range []struct {
		take int64
		ok   bool
	}{{7, true}, {4, false}, {3, true}, {1, false}} {
		if got := g.Take(step.take); got != step.ok {
			t.Errorf("Take(%d) is %v", step.take, got)
		}
	}
	g.SetLimit(5)
	if g.Give(7); g.Take(3) || !g.Take(2) || g.InFlight() != 5 {
		t.Errorf("%d inside", g.InFlight())
	}
}

func TestGateWithoutLimitCounts(t *testing.T) {
	var g Gate
	for range 10 {
		if !g.Enter() {
			t.Fatal("refused without a limit")
		}
	}
	g.SetLimit(10)
	if g.Enter() {
		t.Error("an eleventh entered a gate of ten")
	}
}

func TestGateLeaveWithoutEnter(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("leaving an empty gate went unnoticed")
		}
	}()
	new(Gate).Leave()
}
