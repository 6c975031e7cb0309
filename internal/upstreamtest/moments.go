package upstreamtest

import (
	"slices"
	"time"
)

// Moment is when something happened, as far as is known: between two moments.
type Moment struct{ After, Before time.Time }

// Moments are those of several things.
type Moments []Moment

// Most is how many certainly happened within the fullest interval of that length: who is slow to note the time
// makes it less, never more.
func (m Moments) Most(length time.Duration) (most int) {
	slices.SortFunc(m, func(a, b Moment) int { return a.After.Compare(b.After) })
	for i := range m {
		end := m[i].After.Add(length)
		n := 0
		for j := i; j < len(m) && !m[j].After.After(end); j++ {
			if !m[j].Before.After(end) {
				n++
			}
		}
		most = max(most, n)
	}
	return most
}

// Lately is how many happened in the last d, if they are nearly in order.
func (m Moments) Lately(d time.Duration) (n int) {
	began := time.Now().Add(-d)
	for i := len(m) - 1; i >= 0 && m[i].Before.After(began); i-- {
		n++
	}
	return n
}
