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
