package history

import (
	"math/rand/v2"
	"time"
	"unsafe"
)

// By is what series are about.
type By uint8

// The series of everything, and those of one model, upstream, target, key or kind of error each.
const (
	Total By = iota
	Model
	Upstream
	Target
	Key
	Error
	kinds
)

// Names are those of each By.
var Names = [kinds]string{"total", "model", "upstream", "target", "key", "error"}

// most is how many series there are of each By. What finds no room is added up under Others.
var most = [kinds]int{1, 100, 50, 100, 100, 40}

// Others is the name of the series of all that have none of their own.
const Others = "(others)"

// MemoryLimit is what all series have at most, in bytes.
var MemoryLimit = func() (n int) {
	points := 0
	for _, s := range shapes {
		points += s.keep
	}
	for _, m := range most {
		n += (m + 1) * (int(unsafe.Sizeof(track{})) + points*int(unsafe.Sizeof(Point{})))
	}
	return n
}()

// track is one series at all step lengths.
type track struct {
	name  string
	label string // what to show instead of the name, of keys
	tiers [len(shapes)]tier
	seen  time.Time // when it last counted
}

func (t *track) roll(now time.Time) {
	for i := range t.tiers {
		t.tiers[i].roll(shapes[i], now)
	}
}

// each calls f for the open step of each tier.
func (t *track) each(now time.Time, f func(*cell)) {
	t.roll(now)
	t.seen = now
	for i := range t.tiers {
		c := &t.tiers[i].open
		c.used = true
		f(c)
	}
}

// empty reports whether it has nothing left.
func (t *track) empty() bool {
	for i := range t.tiers {
		if len(t.tiers[i].points) > 0 || t.tiers[i].open.used {
			return false
		}
	}
	return true
}

func (t *track) bytes() (n int) {
	n = int(unsafe.Sizeof(*t))
	for i := range t.tiers {
		n += cap(t.tiers[i].points) * int(unsafe.Sizeof(Point{}))
	}
	return n
}

// weight is how many requests it had lately.
func (t *track) weight() uint32 {
	long := &t.tiers[len(t.tiers)-1]
	n := long.open.Requests
	if i := len(long.points); i > 0 && long.points[i-1].Step+1 >= long.open.Step {
		n += long.points[i-1].Requests
	}
	return n
}

const (
	// idleLong is after how long without a request a series may be dropped for another one.
	idleLong = time.Hour
	// admitOneIn is of how many requests one has its series take the place of the least used: a name with
	// many requests gets a series soon, one with few seldom.
	admitOneIn = 64
)

// table is all series of one By.
type table struct {
	most   int
	tracks map[string]*track
	others *track
	looked time.Time // when the least used was last looked for
}

// track finds the series of name, or makes it.
func (tb *table) track(name string, now time.Time) *track {
	if t := tb.tracks[name]; t != nil {
		return t
	}
	if len(tb.tracks) >= tb.most && !tb.makeRoom(now) {
		if tb.others == nil {
			tb.others = &track{name: Others}
		}
		return tb.others
	}
	t := &track{name: name}
	t.roll(now)
	tb.tracks[name] = t
	return t
}

// makeRoom drops the least used series, if it is idle or the newcomer is drawn. Most calls only draw:
// there may be many names without a series.
func (tb *table) makeRoom(now time.Time) bool {
	drawn := rand.IntN(admitOneIn) == 0
	if !drawn && now.Sub(tb.looked) < time.Second {
		return false
	}
	tb.looked = now
	var least *track
	for _, t := range tb.tracks {
		t.roll(now)
		if least == nil || t.weight() < least.weight() || t.weight() == least.weight() && t.seen.Before(least.seen) {
			least = t
		}
	}
	if now.Sub(least.seen) < idleLong && !(drawn && least.weight() < admitOneIn) {
		return false
	}
	delete(tb.tracks, least.name)
	return true
}

// sweep drops series that have nothing left.
func (tb *table) sweep(now time.Time) {
	for name, t := range tb.tracks {
		if t.roll(now); t.empty() {
			delete(tb.tracks, name)
		}
	}
}
