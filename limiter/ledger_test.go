package limiter

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// spending is a reference that remembers every amount and when it was charged.
type spending struct {
	at     time.Duration
	amount int64
}

// since sums up what was charged at or after t. all is in order.
func since(all []*spending, t time.Duration) (sum int64) {
	for i := len(all) - 1; i >= 0 && all[i].at >= t; i-- {
		sum += all[i].amount
	}
	return sum
}

func TestLedgerAgainstReference(t *testing.T) {
	type open struct {
		charge Charge
		spent  *spending
	}
	for seed := range schedules(60) {
		rnd := rand.New(rand.NewPCG(uint64(seed), 7))
		limit := 1 + rnd.Int64N(1000)
		period := time.Second + time.Duration(rnd.Int64N(int64(3*time.Second)))
		clock := time.Duration(rnd.Int64N(int64(time.Hour)))
		l := NewLedger(limit, period, clock)
		var all []*spending
		var outstanding []open
		admitted := 0
		for range 1000 {
			switch rnd.IntN(20) {
			case 0:
				clock += time.Duration(rnd.Int64N(int64(2 * period)))
			case 1, 2, 3, 4, 5, 6, 7, 8:
				clock += time.Duration(rnd.Int64N(int64(period) / 20))
			}
			if len(outstanding) > 0 && rnd.IntN(3) == 0 {
				i := rnd.IntN(len(outstanding))
				o := outstanding[i]
				outstanding = append(outstanding[:i], outstanding[i+1:]...)
				actual := rnd.Int64N(2*o.charge.Reserved() + 2)
				reserved := o.charge.Reserved()
				o.charge.Settle(clock, actual)
				o.charge.Settle(clock, 1000) // does nothing
				if actual > reserved {
					all = append(all, &spending{clock, actual - reserved})
				} else {
					o.spent.amount = actual
				}
				continue
			}
			amount := rnd.Int64N(limit + limit/4 + 1)
			want := min(amount, limit)
			before, would := l.Peek(clock, amount, MaxLimit)
			c, s, ok := reserve(l, clock, amount)
			strict, remembered := since(all, clock-period), since(all, clock-(subWindows+1)*l.width+1)
			switch {
			case ok != would:
				t.Fatalf("seed %d: Peek said %v, Reserve %v", seed, would, ok)
			case ok && strict+want > limit:
				t.Fatalf("seed %d: %d admitted at %v beside %d of %d", seed, want, clock, strict, limit)
			case !ok && remembered+want <= limit:
				t.Fatalf("seed %d: %d refused at %v beside %d of %d", seed, want, clock, remembered, limit)
			case ok && s.Remaining != before.Remaining-want:
				t.Fatalf("seed %d: %+v after %d became %+v", seed, before, want, s)
			case ok && s.RetryAfter != 0, !ok && s.RetryAfter <= 0:
				t.Fatalf("seed %d: admitted %v with %+v", seed, ok, s)
			}
			if ok {
				admitted++
				spent := &spending{clock, want}
				all = append(all, spent)
				outstanding = append(outstanding, open{c, spent})
				continue
			}
			// What was promised: enough is left then, and not a moment before.
			at := func(then time.Duration) bool {
				copied := &Ledger{period: l.period, grid: l.grid, limit: l.limit, at: l.at, spent: l.spent, used: l.used}
				_, _, ok := reserve(copied, then, amount)
				return ok
			}
			if !at(clock+s.RetryAfter) || at(clock+s.RetryAfter-1) {
				t.Fatalf("seed %d: RetryAfter %v of %d is wrong", seed, s.RetryAfter, want)
			}
			copied := &Ledger{period: l.period, grid: l.grid, limit: l.limit, at: l.at, spent: l.spent, used: l.used}
			if got, _ := copied.Peek(clock+s.Reset, 0, MaxLimit); got.Remaining != limit {
				t.Fatalf("seed %d: Reset %v, then %+v", seed, s.Reset, got)
			}
		}
		if admitted == 0 {
			t.Fatalf("seed %d: nothing was admitted", seed)
		}
	}
}

// TestLedgerKeepsWhatIsUsed when limit and period change, and settles what was charged before.
func TestLedgerKeepsWhatIsUsed(t *testing.T) {
	l := NewLedger(100, time.Minute, 0)
	c, _, _ := reserve(l, 0, 60)
	l.Set(100, time.Hour, 30*time.Second)
	if s, _ := l.Peek(31*time.Second, 0, MaxLimit); s.Remaining != 40 {
		t.Errorf("after the change: %+v", s)
	}
	c.Settle(32*time.Second, 10)
	if s, _ := l.Peek(33*time.Second, 0, MaxLimit); s.Remaining != 90 {
		t.Errorf("after settling: %+v", s)
	}
	l.Set(5, time.Hour, 34*time.Second)
	if _, s, ok := reserve(l, 35*time.Second, 1); ok || s.Remaining != 0 || s.Limit != 5 {
		t.Errorf("over the new limit: %v %+v", ok, s)
	}
	if s, _ := l.Peek(2*time.Hour, 0, MaxLimit); s.Remaining != 5 || s.Reset != 0 {
		t.Errorf("in the end: %+v", s)
	}
}

// TestLedgerForgetsOnce: what was forgotten before the period changed is not given back after.
func TestLedgerForgetsOnce(t *testing.T) {
	l := NewLedger(100, time.Second, 0)
	c, _, _ := reserve(l, 0, 100)
	l.Set(100, 10*time.Second, 5*time.Second)
	c.Settle(6*time.Second, 0)
	if _, _, ok := reserve(l, 6*time.Second, 100); !ok {
		t.Error("the first is refused")
	}
	if _, _, ok := reserve(l, 6*time.Second, 1); ok {
		t.Error("more than the limit is admitted")
	}
	l = NewLedger(100, time.Second, 0)
	c, _, _ = reserve(l, 0, 50)
	l.Set(100, time.Minute, 0)
	l.Set(100, time.Hour, 0)
	c.Settle(0, 0) // where it is cannot be told: the strict side
	if s, _ := l.Peek(0, 0, MaxLimit); s.Remaining != 50 {
		t.Errorf("%+v", s)
	}
}

// TestLedgerSharedByMany never admits more than the limit, and ends with what was settled.
func TestLedgerSharedByMany(t *testing.T) {
	l := NewLedger(1000, time.Hour, 0)
	var wg sync.WaitGroup
	var mu sync.Mutex
	kept := int64(0)
	for range 8 {
		wg.Go(func() {
			for i := range 5000 {
				c, s, ok := reserve(l, time.Second, 30)
				if s.Remaining < 0 || s.Remaining > 1000 {
					t.Error(s)
				}
				if !ok {
					continue
				}
				actual := int64(0)
				if i%1000 == 0 {
					actual = 3
				}
				c.Settle(time.Second, actual)
				mu.Lock()
				kept += actual
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if s, _ := l.Peek(time.Second, 0, MaxLimit); s.Remaining != 1000-kept {
		t.Errorf("%d kept, but %+v", kept, s)
	}
	if n := l.Open(); n != 0 {
		t.Errorf("%d charges are open", n)
	}
}

func BenchmarkReserveAndSettle(b *testing.B) {
	l := NewLedger(MaxLimit, time.Minute, 0)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			c, _, _ := reserve(l, time.Second, 100)
			c.Settle(time.Second, 10)
		}
	})
}

// reserve is Take with no other limit.
func reserve(l *Ledger, now time.Duration, amount int64) (c Charge, s State, admitted bool) {
	admitted = l.Take(&c, &s, now, amount, MaxLimit)
	return c, s, admitted
}
