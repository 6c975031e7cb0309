package limiter

import (
	"sync/atomic"
	"time"
)

// Rule is a limit: at most Limit (1 to MaxLimit) in any interval of length Period. The zero Rule
// is no limit.
type Rule struct {
	Limit  int64
	Period time.Duration
}

// Counter counts what is used of a Rule. Ledger is one, and so is Admissions.
type Counter interface {
	// Set changes the rule. What is used stays used.
	Set(limit int64, period, now time.Duration)
	// Take charges amount, or the whole limit if that is less, if there is room for it. Where limit
	// is less than the rule's limit, it takes the place of that. The charge of a request that was
	// admitted goes to c, and is settled once. s is what the counter then says of itself, or
	// to the request that it refuses.
	Take(c *Charge, s *State, now time.Duration, amount, limit int64) (admitted bool)
	// Peek says what Take would find, without charging.
	Peek(now time.Duration, amount, limit int64) (s State, admitted bool)
	// Open is how many charges are not settled yet.
	Open() int64
}

// Admissions is a Counter of requests: each amount is 1. It takes no lock. An admission cannot be
// given back, so settling its Charge changes nothing.
type Admissions struct {
	window atomic.Pointer[Window] // another one after each change of the period
}

// NewAdmissions makes Admissions that admit limit (1 to MaxLimit) per period.
func NewAdmissions(limit int64, period, now time.Duration) *Admissions {
	a := &Admissions{}
	a.window.Store(NewWindow(limit, period, now, 0))
	return a
}

// Set implements Counter. It is called by one goroutine at a time.
func (a *Admissions) Set(limit int64, period, now time.Duration) {
	old := a.window.Load()
	if old.Period() == period {
		old.SetLimit(limit)
		return
	}
	used, from := old.Freeze(now)
	a.window.Store(NewWindow(limit, period, from, used))
}

// Take implements Counter.
func (a *Admissions) Take(c *Charge, s *State, now time.Duration, _, limit int64) (admitted bool) {
	for {
		state, admitted, err := a.window.Load().AllowWithin(now, limit)
		if err != nil {
			continue // a frozen window has a successor, or is about to
		}
		*s = state
		if admitted {
			c.amount = 1
		}
		return admitted
	}
}

// Peek implements Counter.
func (a *Admissions) Peek(now time.Duration, amount, limit int64) (s State, admitted bool) {
	for {
		if s, err := a.window.Load().PeekWithin(now, limit); err == nil {
			return s, amount <= s.Remaining
		}
	}
}

// Open implements Counter.
func (a *Admissions) Open() int64 { return 0 }
