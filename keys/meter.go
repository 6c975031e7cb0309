package keys

import (
	"sync/atomic"
	"time"

	"sluice/limiter"
)

// Meter counts one limit of one key.
type Meter struct {
	limit   *limit
	counted atomic.Pointer[counted] // nil without a limit
	share   Share                   // nil where this process counts alone
}

// counted is a limit's rule, and what this process has itself counted of it.
type counted struct {
	limiter.Rule
	limiter.Counter
}

// Share counts one limit of one key together with other nodes. own is what this node has counted
// itself; a Share charges that too.
type Share interface {
	// Take charges amount to c, if it is within rule for all nodes. s is then what own would say of
	// all nodes. A refusal whose state is Uncounted is not the limit's.
	Take(c *Charge, s *limiter.State, rule limiter.Rule, own limiter.Counter, now time.Duration, amount int64) (admitted bool)
	// Peek says what Take would find, without charging.
	Peek(rule limiter.Rule, own limiter.Counter, now time.Duration, amount int64) (s limiter.State, admitted bool)
	// Settle makes actual of what was reserved out of a loan. (Own is settled already.)
	Settle(loan Loan, rule limiter.Rule, reserved, actual int64)
}

// Charge is what a request was charged of one meter, to be settled.
type Charge struct {
	Own  limiter.Charge // of this node's own counter
	Loan Loan
}

// Loan is where a Charge comes from that several nodes count. It is a Share's own.
type Loan struct {
	Lease *limiter.Lease
	Term  int64
}

// metered are the limits that meters count.
var metered = func() (all []*limit) {
	for i := range limits {
		if limits[i].counter != nil {
			all = append(all, &limits[i])
		}
	}
	return all
}()

// newMeters makes a meter for each limit that has one. share may be nil.
func newMeters(share func(limit string) Share) []Meter {
	meters := make([]Meter, len(metered))
	for i, l := range metered {
		meters[i].limit = l
		if share != nil {
			meters[i].share = share(l.name)
		}
	}
	return meters
}

// MeterNames are the names of the limits that meters count, in the order of Key.Meters.
func MeterNames() (names []string) {
	for _, l := range metered {
		names = append(names, l.name)
	}
	return names
}

// Name is the limit's name among Limits.
func (m *Meter) Name() string { return m.limit.name }

// Share is nil where this process counts alone.
func (m *Meter) Share() Share { return m.share }

// set makes a rule take effect. What is counted stays counted.
func (m *Meter) set(rule limiter.Rule, now time.Duration) {
	switch old := m.counted.Load(); {
	case rule.Limit == 0:
		m.counted.Store(nil)
	case old == nil:
		m.counted.Store(&counted{rule, m.limit.counter(rule, now)})
	case old.Rule != rule:
		old.Set(rule.Limit, rule.Period, now)
		m.counted.Store(&counted{rule, old.Counter})
	}
}

// Rule is the limit; false without one.
func (m *Meter) Rule() (limiter.Rule, bool) {
	if c := m.counted.Load(); c != nil {
		return c.Rule, true
	}
	return limiter.Rule{}, false
}

// Left says what a request for nothing would find; false for a key without this limit.
func (m *Meter) Left(now time.Duration) (state limiter.State, limited bool) {
	c := m.counted.Load()
	if c == nil {
		return limiter.State{}, false
	}
	state, _ = m.peek(c, now, 0)
	return state, true
}

// Own is what this node has itself counted within the last period; false for a key without this limit.
func (m *Meter) Own(now time.Duration) (rule limiter.Rule, used int64, limited bool) {
	c := m.counted.Load()
	if c == nil {
		return limiter.Rule{}, 0, false
	}
	state, _ := c.Peek(now, 0, limiter.MaxLimit)
	return c.Rule, state.Limit - state.Remaining, true
}

func (m *Meter) take(e *Entry, now time.Duration) (admitted bool) {
	c := e.counted
	if m.share != nil {
		return m.share.Take(&e.charge, &e.State, c.Rule, c.Counter, now, e.amount)
	}
	return c.Take(&e.charge.Own, &e.State, now, e.amount, limiter.MaxLimit)
}

func (m *Meter) peek(c *counted, now time.Duration, amount int64) (s limiter.State, admitted bool) {
	if m.share != nil {
		return m.share.Peek(c.Rule, c.Counter, now, amount)
	}
	return c.Peek(now, amount, limiter.MaxLimit)
}

// settle makes actual of what was charged. The Charge is empty after it.
func (m *Meter) settle(charge *Charge, c *counted, now time.Duration, actual int64) {
	reserved := charge.Own.Reserved()
	charge.Own.Settle(now, actual)
	if m.share != nil {
		m.share.Settle(charge.Loan, c.Rule, reserved, actual)
	}
	*charge = Charge{}
}
