package pool

import (
	"sync/atomic"
	"time"
)

// tally counts things, and some of them apart, over the last ten seconds. It is lock-free:
// one word per half second holds both counts.
type tally struct{ slots [32]atomic.Uint64 }

const (
	tallyWidth = 500 * time.Millisecond
	// atMost and atLeast are how many half seconds cover no more and no less than ten
	// seconds, the half second under way among them.
	atMost, atLeast = 20, 21

	// A word is the number of its half second, the count of some and the count of all.
	tallyBits = 20
	tallyMask = 1<<tallyBits - 1
	tallyOne  = 1
	tallySome = 1<<tallyBits | tallyOne
	numberBit = 2 * tallyBits
)

// add counts one: tallyOne, or tallySome for one that also counts apart.
func (t *tally) add(now time.Duration, one uint64) {
	number := tallyNumber(now)
	slot := &t.slots[number%uint64(len(t.slots))]
	for {
		old := slot.Load()
		next := old + one
		switch {
		case old>>numberBit != number:
			next = number<<numberBit + one // what it held is long over
		case old&tallyMask == tallyMask:
			return // a million in half a second: full
		}
		if slot.CompareAndSwap(old, next) {
			return
		}
	}
}

// sum adds up the last n half seconds.
func (t *tally) sum(now time.Duration, n uint64) (all, some int) {
	last := tallyNumber(now)
	for i := range n {
		number := (last - i) & (1<<(64-numberBit) - 1)
		if word := t.slots[number%uint64(len(t.slots))].Load(); word>>numberBit == number {
			all += int(word & tallyMask)
			some += int(word >> tallyBits & tallyMask)
		}
	}
	return all, some
}

func (t *tally) clear() {
	for i := range t.slots {
		t.slots[i].Store(0)
	}
}

// tallyNumber is the half second that now lies in, in the bits that a word has for it: it
// comes again after 97 days, when nobody has counted in that slot for sixteen seconds.
func tallyNumber(now time.Duration) uint64 {
	const first = 32 // a word of zero holds no half second in use
	return (uint64(max(0, now)/tallyWidth) + first) & (1<<(64-numberBit) - 1)
}
