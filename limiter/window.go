// Package limiter counts what one gateway key may do. Window (a sliding window of
// admissions), Gate (what is in flight) and Lease are lock-free. Ledger (a window of
// amounts, which refunds are taken off again) and Queue (turns at a full upstream) take
// a lock of their own. None of them knows HTTP or has a clock: time is an argument, the
// time elapsed on the caller's monotonic clock since an origin of its choice.
//
// # What a Window promises
//
// In any interval of length period, both ends included, at most limit calls of
// Allow succeed, however many goroutines call it. The time of a decision is the
// later of its argument and the latest time the Window has seen, so a caller
// whose reading of the clock is a little stale cannot open a gap. A refused call
// counts for nothing.
//
// # Precision
//
// The period is cut into 63 sub-windows and an admission is forgotten when its
// whole sub-window is older than period. It is therefore remembered for at least
// period and at most period × (1 + 1/63), rounded up to 64 ns: the error is only ever on the strict
// side, and a caller that always asks gets at least 98.4% of limit.
//
// # How
//
// One atomic word holds the number of the current sub-window and the count of all
// admissions ever made. A ring of 64 marks holds, for each sub-window that still
// matters, what that count was when it began; the admissions inside the window
// are the difference of the two. A mark is written before the word moves on to its
// sub-window and never changed while it matters, so the one compare-and-swap on
// the word decides. A mark may be written a moment early by a goroutine that then
// loses the race for the word; admissions made in between count as made in the
// later sub-window, which again errs on the strict side (and, should that goroutine's
// clock be many sub-windows ahead of the others', for that much longer).
//
// The counts that sub-window approximations interpolate (Cloudflare, "How we built
// rate limiting capable of scaling to millions of domains", 2017) over-admit when
// traffic is uneven inside a sub-window; nothing is interpolated here.
//
// # Memory
//
// 560 bytes a Window, whatever the limit and the period.
package limiter

import (
	"errors"
	"sync/atomic"
	"time"
)

const (
	subWindows = 63 // complete ones in a period; one more is always partly over
	ringMask   = 63

	countBits = 30
	countMask = 1<<countBits - 1

	// frozen is a word that no Window reaches: its sub-window number would be
	// that of a process eight years old with a period of a second.
	frozen = ^uint64(0)
)

// MaxLimit is the largest limit a Window can hold.
const MaxLimit = 1_000_000_000

// ErrFrozen is returned by a Window that Freeze has ended; the caller asks its successor.
var ErrFrozen = errors.New("window is frozen")

// Window is a sliding window of admissions. Make one with NewWindow.
type Window struct {
	period time.Duration
	grid
	limit atomic.Int64

	word  atomic.Uint64 // sub-window number << countBits | admissions ever made, modulo 2^30
	marks [ringMask + 1]atomic.Uint64
}

// State is what a Window says of itself at one moment.
type State struct {
	Limit     int64
	Remaining int64
	// Reset is how long until nothing is used, if nobody else comes.
	Reset time.Duration
	// RetryAfter is how long until one more would be admitted, if nobody else
	// comes; 0 when one would be now, and in what Allow says of an admission.
	RetryAfter time.Duration
	// Uncounted says of a refusal that the limit is not known to be reached: who counts together
	// with others cannot tell now. It is for such a caller to set.
	Uncounted bool
}

// NewWindow makes a Window that admits limit (1 to MaxLimit) per period and counts
// used as admitted at now.
func NewWindow(limit int64, period, now time.Duration, used int64) *Window {
	w := &Window{period: period, grid: gridOf(period)}
	w.limit.Store(limit)
	at := w.number(now)
	for j := at - subWindows; j <= at; j++ {
		w.marks[j&ringMask].Store(pack(j, 0))
	}
	w.word.Store(pack(at, uint64(min(used, MaxLimit))))
	return w
}

// Period is the length the Window was made with.
func (w *Window) Period() time.Duration { return w.period }

// SetLimit changes the limit; what is already counted stays counted.
func (w *Window) SetLimit(limit int64) { w.limit.Store(limit) }

// Allow admits one, or says when one will be. The error is nil or ErrFrozen.
func (w *Window) Allow(now time.Duration) (State, bool, error) { return w.AllowWithin(now, MaxLimit) }

// AllowWithin is Allow with another limit, where that is less.
func (w *Window) AllowWithin(now time.Duration, limit int64) (State, bool, error) {
	for decision := now; ; {
		v, err := w.view(decision)
		if err != nil {
			return State{}, false, err
		}
		v.limit = min(v.limit, limit)
		if v.used < v.limit {
			if !w.word.CompareAndSwap(v.word, pack(v.at, v.count+1)) {
				continue
			}
			return State{Limit: v.limit, Remaining: v.limit - v.used - 1, Reset: w.begin(v.at+subWindows+1) - now}, true, nil
		}
		s, ok, later := w.state(&v, now)
		if ok {
			return s, false, nil
		}
		decision = max(decision, later)
	}
}

// Peek says what Allow would find, without admitting. The error is nil or ErrFrozen.
func (w *Window) Peek(now time.Duration) (State, error) { return w.PeekWithin(now, MaxLimit) }

// PeekWithin is Peek with another limit, where that is less.
func (w *Window) PeekWithin(now time.Duration, limit int64) (State, error) {
	for decision := now; ; {
		v, err := w.view(decision)
		if err != nil {
			return State{}, err
		}
		v.limit = min(v.limit, limit)
		s, ok, later := w.state(&v, now)
		if ok {
			return s, nil
		}
		decision = max(decision, later)
	}
}

// Freeze ends the Window and returns how many it still counts at now, and the time from
// which the Window that takes its place must count them: no admission was later. Every
// later call gets ErrFrozen.
func (w *Window) Freeze(now time.Duration) (used int64, from time.Duration) {
	for {
		v, err := w.view(now)
		if err != nil {
			return 0, now
		}
		if w.word.CompareAndSwap(v.word, frozen) {
			return v.used, max(now, w.begin(v.at+1))
		}
	}
}

// view is one consistent reading of the Window.
type view struct {
	word  uint64 // as loaded
	at    uint64 // the sub-window of the decision
	count uint64 // admissions ever made
	used  int64  // of them inside the window
	limit int64
}

func (w *Window) view(now time.Duration) (view, error) {
	for {
		word := w.word.Load()
		if word == frozen {
			return view{}, ErrFrozen
		}
		n, count := unpack(word)
		at := max(w.number(now), n)
		if at > n {
			w.advance(n, at, count)
			if !w.word.CompareAndSwap(word, pack(at, count)) {
				continue
			}
			word = pack(at, count)
		}

		first, base := unpack(w.marks[(at-subWindows)&ringMask].Load())
		if first != at-subWindows {
			// The slot already belongs to a sub-window later than at: somebody has
			// seen a later time and is about to say so. It is that time now.
			now = w.begin(first)
			continue
		}
		return view{word: word, at: at, count: count, used: int64((count - base) & countMask), limit: w.limit.Load()}, nil
	}
}

// advance writes the marks of the sub-windows after from, up to to.
func (w *Window) advance(from, to, count uint64) {
	for j := max(from+1, to-subWindows); j <= to; j++ {
		mark := &w.marks[j&ringMask]
		for {
			old := mark.Load()
			if number, _ := unpack(old); number >= j || mark.CompareAndSwap(old, pack(j, count)) {
				break
			}
		}
	}
}

// state fills a State from v; false when the Window has moved on meanwhile. later is then
// the time that somebody has seen, if it is later than that of v.
func (w *Window) state(v *view, now time.Duration) (s State, ok bool, later time.Duration) {
	s = State{Limit: v.limit, Remaining: max(0, v.limit-v.used)}
	needRetry, needReset := v.used >= v.limit, v.used > 0
	for j := v.at - subWindows + 1; (needRetry || needReset) && j <= v.at+1; j++ {
		used := int64(0) // at+1: nothing has been admitted after the current sub-window
		if j <= v.at {
			number, base := unpack(w.marks[j&ringMask].Load())
			if number != j {
				return State{}, false, w.begin(number)
			}
			used = int64((v.count - base) & countMask)
		}
		// From then on sub-window j is the oldest that counts.
		then := w.begin(j+subWindows) - now
		if needRetry && used < v.limit {
			s.RetryAfter, needRetry = then, false
		}
		if needReset && used == 0 {
			s.Reset, needReset = then, false
		}
	}
	return s, w.word.Load() == v.word, 0
}

// grid is how time is cut into sub-windows.
type grid struct{ width time.Duration }

func gridOf(period time.Duration) grid { return grid{(period + subWindows - 1) / subWindows} }

// number is the sub-window that now lies in; the first is such that all marks
// before it have numbers above zero, the number of a slot never written.
func (g grid) number(now time.Duration) uint64 {
	return uint64(max(0, now)/g.width) + subWindows + 1
}

// begin is the time at which sub-window n begins.
func (g grid) begin(n uint64) time.Duration {
	return time.Duration(n-subWindows-1) * g.width
}

func pack(number, count uint64) uint64 { return number<<countBits | count&countMask }

func unpack(word uint64) (number, count uint64) { return word >> countBits, word & countMask }
