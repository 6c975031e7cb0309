package pool

import (
	"sync"
	"time"
)

// budget bounds the part of the requests sent to an upstream that are retries: over any ten
// seconds at most a fifth, though never fewer than ten. Without one, an upstream that fails
// under load would get a multiple of the load.
type budget struct {
	sent tally // everything, retries among it

	mu      sync.Mutex // one retry decided at a time; a request that fails is in no hurry
	retries tally
}

const (
	retryPart  = 5 // one in this many
	retryFloor = 10
)

// take permits one more retry, or not.
func (b *budget) take(now time.Duration) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.left(now) {
		return false
	}
	b.retries.add(now, tallyOne)
	return true
}

// left reports whether take would permit one. Retries are remembered for a little more than
// ten seconds and requests for a little less, so that what is inexact is on the strict side.
func (b *budget) left(now time.Duration) bool {
	retries, allowed := b.state(now)
	return retries < allowed
}

func (b *budget) state(now time.Duration) (retries, allowed int) {
	sent, _ := b.sent.sum(now, atMost)
	retries, _ = b.retries.sum(now, atLeast)
	return retries, max(retryFloor, (sent+1)/retryPart)
}
