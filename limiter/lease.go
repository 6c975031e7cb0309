package limiter

import (
	"math"
	"sync/atomic"
	"time"
)

// Lease is a part of a limit that is counted elsewhere: it may be spent here, without asking, until
// a moment. It takes no lock.
type Lease struct {
	// Mark and Term are the lender's own, to know it by when something of it comes back.
	Mark, Term int64

	until time.Duration
	left  atomic.Int64
}

// ended is what is left of a Lease that was ended: no number of amounts given back brings it above
// zero.
const ended = math.MinInt64 / 2

// NewLease makes a Lease of amount that holds until until, on the clock whose times Take gets.
func NewLease(amount int64, until time.Duration, mark, term int64) *Lease {
	l := &Lease{until: until, Mark: mark, Term: term}
	l.left.Store(amount)
	return l
}

// Take spends amount, if there is as much left and the Lease still holds at now.
func (l *Lease) Take(now time.Duration, amount int64) bool {
	if now >= l.until {
		return false
	}
	if l.left.Add(-amount) >= 0 {
		return true
	}
	l.left.Add(amount)
	return false
}

// Give puts amount back that was taken and not used, and reports whether it can be spent again here.
func (l *Lease) Give(now time.Duration, amount int64) bool {
	return now < l.until && l.left.Add(amount) > ended/2 // below zero only as somebody is trying to take
}

// Left is how much may still be spent.
func (l *Lease) Left() int64 { return max(0, l.left.Load()) }

// Over reports whether the Lease holds no more at now.
func (l *Lease) Over(now time.Duration) bool { return now >= l.until }

// End ends the Lease and returns what was not spent, or a little less if somebody is just trying to
// take more than there is.
func (l *Lease) End() int64 { return max(0, l.left.Swap(ended)) }
