package keys

import (
	"time"

	"sluice/limiter"
)

// Reservation is what a request holds of its key's meters until it is settled: of all that limit
// it, or of none. It is reused for the next request.
type Reservation struct {
	entries []Entry
}

// Entry is one meter's part in a Reservation.
type Entry struct {
	State   limiter.State
	meter   *Meter
	counted *counted // by the meter, at that moment
	amount  int64
	charge  Charge // empty unless open
	open    bool   // there is something to settle
}

// Name is the limit's name among Limits.
func (e *Entry) Name() string { return e.meter.Name() }

// Rule is the limit, as it was at that moment.
func (e *Entry) Rule() limiter.Rule { return e.counted.Rule }

// Note is what a refusal says of d besides; it may be empty.
func (e *Entry) Note(d Demand) string {
	if e.meter.limit.note == nil {
		return ""
	}
	return e.meter.limit.note(d, e.State.Limit)
}

// Reserve charges all meters of the key with what a request needs, or none of them. refused is the
// entry of the one that has no room, and lives as long as r's; nil if the request is admitted. A
// refusal whose State is Uncounted is not the limit's. A Reserve that admits is followed by a Settle.
func (k *Key) Reserve(now time.Duration, d Demand, r *Reservation) (refused *Entry) {
	r.entries = r.entries[:0]
	if refused = r.take(now, d, k.meters); refused != nil {
		r.giveBack(now)
		return refused
	}
	r.settleKnown(now)
	return nil
}

// take charges meters, the last one first. At the first that refuses it stops.
func (r *Reservation) take(now time.Duration, d Demand, meters []Meter) (refused *Entry) {
	for i := len(meters) - 1; i >= 0; i-- {
		m := &meters[i]
		c := m.counted.Load()
		if c == nil {
			continue
		}
		e := r.add(m, c, d)
		if e.open = m.take(e, now); !e.open {
			return e
		}
	}
	return nil
}

// add makes the next entry. Its charge is empty: that of the last use of its place was settled.
func (r *Reservation) add(m *Meter, c *counted, d Demand) *Entry {
	n := len(r.entries)
	if n == cap(r.entries) {
		r.entries = append(r.entries, Entry{})
	}
	r.entries = r.entries[:n+1]
	e := &r.entries[n]
	e.meter, e.counted, e.amount, e.open = m, c, m.limit.needs(d), false
	return e
}

// giveBack gives back all that was charged.
func (r *Reservation) giveBack(now time.Duration) {
	for i := range r.entries {
		r.entries[i].settle(now, 0)
	}
}

// settleKnown settles what will not become another amount.
func (r *Reservation) settleKnown(now time.Duration) {
	for i := range r.entries {
		if e := &r.entries[i]; e.meter.limit.used == nil {
			e.settle(now, e.amount)
		}
	}
}

// Settle makes of what was reserved what the request has used. Settling again does nothing.
func (r *Reservation) Settle(now time.Duration, d Demand) {
	for i := range r.entries {
		if e := &r.entries[i]; e.open {
			e.settle(now, e.meter.limit.used(d, e.charge.Own.Reserved()))
		}
	}
}

func (e *Entry) settle(now time.Duration, actual int64) {
	if e.open {
		e.open = false
		e.meter.settle(&e.charge, e.counted, now, actual)
	}
}

// Peek says what Reserve would find, without charging; r then has the states, and nothing to settle.
func (k *Key) Peek(now time.Duration, d Demand, r *Reservation) (refused *Entry) {
	r.entries = r.entries[:0]
	for i := len(k.meters) - 1; i >= 0; i-- {
		m := &k.meters[i]
		c := m.counted.Load()
		if c == nil {
			continue
		}
		e := r.add(m, c, d)
		var admitted bool
		if e.State, admitted = m.peek(c, now, e.amount); !admitted {
			return e
		}
	}
	return nil
}

// Left is the meter's state as it was found for the request, or else as it is now; false for a key
// without this limit.
func (r *Reservation) Left(m *Meter, now time.Duration) (state limiter.State, limited bool) {
	for i := range r.entries {
		if e := &r.entries[i]; e.meter == m {
			return e.State, true
		}
	}
	return m.Left(now)
}

// Reset empties a Reservation that is settled, for the next request.
func (r *Reservation) Reset() {
	clear(r.entries)
	r.entries = r.entries[:0]
}
