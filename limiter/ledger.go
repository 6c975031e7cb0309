package limiter

import (
	"sync"
	"time"
)

// Ledger is a sliding window of amounts: what is charged is reserved first, when it is
// not yet known, and settled later. It keeps the promise and has the precision of a Window:
// what was reserved or settled in any interval of length period is never more than limit by a
// reservation, though a settlement may exceed it by what had not been reserved; then nothing is
// admitted until enough is forgotten.
//
// A part given back is taken off where it was reserved, which a count of all that ever was, as a
// Window has it, cannot do for others' eyes at once: hence a lock, of this Ledger alone, held for some
// tens of nanoseconds.
type Ledger struct {
	mu     sync.Mutex
	period time.Duration
	grid
	limit  int64
	at     uint64              // the current sub-window
	spent  [ringMask + 1]int64 // in each sub-window that still matters
	used   int64               // their sum
	open   int64               // charges that are not settled
	epoch  int                 // grows with each change of the period
	carry  uint64              // the sub-window that holds what was used when it changed
	before uint64              // and the sub-window of the period before that it was then
}

// Charge is an amount in a Ledger, to be settled.
type Charge struct {
	ledger *Ledger
	amount int64
	at     uint64
	epoch  int
}

// NewLedger makes a Ledger that admits limit (1 to MaxLimit) per period.
func NewLedger(limit int64, period, now time.Duration) *Ledger {
	l := &Ledger{limit: limit}
	l.setPeriod(period, now)
	return l
}

// Set changes limit and period; what is used stays used, from now on if the period changes.
func (l *Ledger) Set(limit int64, period, now time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.limit = limit
	if period != l.period {
		l.advance(now)
		l.setPeriod(period, now)
	}
}

func (l *Ledger) setPeriod(period, now time.Duration) {
	l.before = l.at
	l.period, l.grid = period, gridOf(period)
	l.at = l.number(now)
	l.spent = [ringMask + 1]int64{}
	l.spent[l.at&ringMask] = l.used
	l.carry = l.at
	l.epoch++
}

// Take implements Counter.
func (l *Ledger) Take(c *Charge, s *State, now time.Duration, amount, limit int64) (admitted bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.advance(now)
	amount, limit = min(amount, l.limit), min(limit, l.limit)
	if l.used+amount > limit {
		*s = l.state(now, amount, limit)
		return false
	}
	l.spent[l.at&ringMask] += amount
	l.used += amount
	l.open++
	*c = Charge{ledger: l, amount: amount, at: l.at, epoch: l.epoch}
	*s = l.state(now, 0, limit)
	return true
}

// Peek implements Counter.
func (l *Ledger) Peek(now time.Duration, amount, limit int64) (s State, admitted bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.advance(now)
	amount, limit = min(amount, l.limit), min(limit, l.limit)
	return l.state(now, amount, limit), l.used+amount <= limit
}

// Open is how many charges are not settled yet.
func (l *Ledger) Open() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open
}

// Reserved is the amount that was charged.
func (c *Charge) Reserved() int64 { return c.amount }

// Settle makes actual of what was reserved: the rest is given back where it was charged, what
// exceeds it is charged now. The Charge is empty after it, and settling an empty one does nothing.
func (c *Charge) Settle(now time.Duration, actual int64) {
	l := c.ledger
	if l == nil {
		return
	}
	c.ledger = nil
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
	l.advance(now)
	if more := max(0, actual) - c.amount; more >= 0 {
		l.spent[l.at&ringMask] += more
		l.used += more
	} else if at, counts := l.where(c); counts {
		l.spent[at&ringMask] += more
		l.used += more
	}
}

// where is the sub-window that holds c, if it is not forgotten. Of a charge that is older than
// two changes of the period that cannot be told any more.
func (l *Ledger) where(c *Charge) (at uint64, counts bool) {
	switch {
	case c.epoch == l.epoch:
		at = c.at
	case c.epoch == l.epoch-1 && l.before-c.at <= subWindows:
		at = l.carry
	default:
		return 0, false
	}
	return at, l.at-at <= subWindows
}

// advance forgets what is older than the period at now.
func (l *Ledger) advance(now time.Duration) {
	n := l.number(now)
	for ; l.at < n; l.at++ {
		if n-l.at > ringMask+1 { // nothing of all that matters any more
			l.spent, l.used = [ringMask + 1]int64{}, 0
			l.at = n
			return
		}
		oldest := &l.spent[(l.at+1)&ringMask]
		l.used -= *oldest
		*oldest = 0
	}
}

// state is what a caller that wants amount of limit is told.
func (l *Ledger) state(now time.Duration, amount, limit int64) State {
	s := State{Limit: limit, Remaining: max(0, limit-l.used)}
	left := l.used
	needRetry, needReset := left+amount > limit, left > 0
	for j := l.at - subWindows; (needRetry || needReset) && j <= l.at; j++ {
		left -= l.spent[j&ringMask]
		then := l.begin(j+subWindows+1) - now
		if needRetry && left+amount <= limit {
			s.RetryAfter, needRetry = then, false
		}
		if needReset && left == 0 {
			s.Reset, needReset = then, false
		}
	}
	return s
}
