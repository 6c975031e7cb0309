package limiter

import (
	"sync"
	"sync/atomic"
)

// Queue is a Gate that lets those who find it full wait for their turn, fairly: each key has a line
// of its own, and whoever leaves makes room for the next line's first. So a key with a thousand waiting
// delays another key's first by one place, not by a thousand. Who finds room and nobody
// waiting enters without a lock. Its zero value bounds nothing and only counts.
type Queue struct {
	gate    Gate
	waiting atomic.Int64 // changed with mu held
	mu      sync.Mutex
	lines   map[any]*line
	next    *line // whose turn it is; the others follow in a ring
}

// line is one key's.
type line struct {
	key         any
	first, last *Waiter
	length      int
	before      *line
	after       *line
}

// Waiter is one place in a Queue's line. It may be used again once it has its turn or has left.
type Waiter struct {
	// Turn gets true when the Waiter has a place inside, and false when it had to make room
	// for a key with fewer waiting.
	Turn chan bool

	line          *line // nil when not in one
	before, after *Waiter
}

// NewWaiter makes a Waiter.
func NewWaiter() *Waiter { return &Waiter{Turn: make(chan bool, 1)} }

// SetLimit changes how many may be inside at once; 0 is no limit. Whoever is inside stays.
func (q *Queue) SetLimit(limit int64) {
	q.gate.SetLimit(limit)
	q.admit()
}

// Limit is how many may be inside at once; 0 is no limit.
func (q *Queue) Limit() int64 { return q.gate.Limit() }

// InFlight is how many are inside now.
func (q *Queue) InFlight() int64 { return q.gate.InFlight() }

// Waiting is how many wait.
func (q *Queue) Waiting() int64 { return q.waiting.Load() }

// Full reports whether Enter would fail now.
func (q *Queue) Full() bool {
	limit := q.gate.Limit()
	return limit > 0 && (q.waiting.Load() > 0 || q.gate.InFlight() >= limit)
}

// Enter takes a place, unless there is none, or somebody waits for one. Each place is given back
// with one Leave.
func (q *Queue) Enter() bool { return q.waiting.Load() == 0 && q.gate.Enter() }

// Leave gives a place back.
func (q *Queue) Leave() {
	q.gate.Leave()
	// Join counts itself as waiting before it looks whether there is room, so that one of the two
	// sees the other.
	if q.waiting.Load() > 0 {
		q.admit()
	}
}

// admit gives the places that are free to those who wait.
func (q *Queue) admit() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.next != nil && q.gate.Enter() {
		w := q.next.first
		q.next = q.next.after // the line after it is next, unless this was the only one
		q.remove(w)
		w.Turn <- true
	}
}

// Join puts w into key's line. It refuses if more than patience would have their turn before, or if
// most wait already; then the key with the most waiting makes room for one with fewer. ahead is how
// many have their turn before.
func (q *Queue) Join(w *Waiter, key any, patience, most int) (ahead int, joined bool) {
	q.mu.Lock()
	defer func() {
		q.mu.Unlock()
		if joined {
			q.admit() // somebody may have left meanwhile
		}
	}()
	l := q.lines[key]
	mine := 0
	if l != nil {
		mine = l.length
	}
	longest := l
	for _, other := range q.lines {
		if other.key != key {
			ahead += min(other.length, mine+1)
		}
		if longest == nil || other.length > longest.length {
			longest = other
		}
	}
	ahead += mine
	if ahead > patience {
		return ahead, false
	}
	if int(q.waiting.Load()) >= most {
		if longest == nil || longest.length <= mine+1 {
			return ahead, false
		}
		out := longest.last
		q.remove(out)
		out.Turn <- false
	}
	if l == nil {
		l = q.open(key)
	}
	w.line, w.before, w.after = l, l.last, nil
	if l.last != nil {
		l.last.after = w
	} else {
		l.first = w
	}
	l.last = w
	l.length++
	q.waiting.Add(1)
	return ahead, true
}

// Quit takes w out of its line. True means that it had its turn before, and is inside.
func (q *Queue) Quit(w *Waiter) (inside bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if w.line != nil {
		q.remove(w)
		return false
	}
	return <-w.Turn
}

// open makes a line for key, whose turn is after all others'.
func (q *Queue) open(key any) *line {
	if q.lines == nil {
		q.lines = map[any]*line{}
	}
	l := &line{key: key}
	q.lines[key] = l
	if q.next == nil {
		l.before, l.after = l, l
		q.next = l
		return l
	}
	l.before, l.after = q.next.before, q.next
	l.before.after, l.after.before = l, l
	return l
}

// remove takes w out of its line, and the line out of the ring if it was the last in it.
func (q *Queue) remove(w *Waiter) {
	l := w.line
	if w.before != nil {
		w.before.after = w.after
	} else {
		l.first = w.after
	}
	if w.after != nil {
		w.after.before = w.before
	} else {
		l.last = w.before
	}
	w.line, w.before, w.after = nil, nil, nil
	l.length--
	q.waiting.Add(-1)
	if l.length > 0 {
		return
	}
	delete(q.lines, l.key)
	if l.after == l {
		q.next = nil
		return
	}
	l.before.after, l.after.before = l.after, l.before
	if q.next == l {
		q.next = l.after
	}
}
