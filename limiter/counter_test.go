package limiter

import (
	"testing"
	"time"
)

// TestCountersAgree: Admissions and Ledger admit the same requests, through changes of their rule.
func TestCountersAgree(t *testing.T) {
	const minute = time.Minute
	counters := map[string]Counter{"admissions": NewAdmissions(3, minute, 0), "ledger": NewLedger(3, minute, 0)}
	for name, c := range counters {
		t.Run(name, func(t *testing.T) {
			peek := func(now time.Duration, within, want int64) {
				t.Helper()
				if s, admitted := c.Peek(now, 1, within); s.Remaining != want || admitted != (want > 0) {
					t.Errorf("%v, %+v, want %d left", admitted, s, want)
				}
			}
			reserve := func(now time.Duration, within int64, want bool) {
				t.Helper()
				var charge Charge
				var s State
				admitted := c.Take(&charge, &s, now, 1, within)
				if admitted != want {
					t.Errorf("%v, %+v", admitted, s)
				}
				if admitted && charge.Reserved() != 1 {
					t.Errorf("%d is reserved", charge.Reserved())
				}
				charge.Settle(now, 1)
			}
			peek(0, MaxLimit, 3)
			reserve(0, 1, true)
			reserve(0, 1, false)
			reserve(0, MaxLimit, true)
			peek(0, MaxLimit, 1)
			c.Set(5, minute, 0)
			peek(0, MaxLimit, 3)
			c.Set(5, 2*minute, 0)
			peek(minute+minute/2, MaxLimit, 3) // what was used when the period changed is not forgotten yet
			c.Set(2, 2*minute, minute+minute/2)
			peek(minute+minute/2, MaxLimit, 0)
			peek(5*minute, MaxLimit, 2)
			if n := c.Open(); n != 0 {
				t.Errorf("%d charges are open", n)
			}
		})
	}
}
