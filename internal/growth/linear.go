// Package growth tests how the time that work takes grows with its input.
package growth

import (
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/internal/upstreamtest"
)

// Linear fails t if the work that make returns for an input of n bytes takes far more than eight
// times as long for eight times the bytes: what takes their square takes 64 times as long. Only the
// thread's own time counts, and the least of several runs, so that a busy machine changes little.
func Linear(t *testing.T, what string, make func(n int) (work func())) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	size := 16 << 10
	if upstreamtest.RaceDetector {
		size = 4 << 10
	}
	small, large := make(size), make(8*size)
	var ratio float64
	for range 5 {
		if ratio = float64(least(large)) / float64(least(small)); ratio < 24 {
			return
		}
	}
	t.Errorf("%s: eight times the bytes take %.1f times as long", what, ratio)
}

// least is the least time that work takes in several runs.
func least(work func()) time.Duration {
	least := time.Duration(1 << 62)
	for range 3 {
		began := threadTime()
		work()
		least = min(least, threadTime()-began)
	}
	return max(least, time.Microsecond)
}

// threadTime is how long this thread has run.
func threadTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		panic(err)
	}
	return time.Duration(t.Nano())
}
