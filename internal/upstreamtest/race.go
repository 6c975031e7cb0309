//go:build race

package upstreamtest

// RaceDetector is whether the race detector watches. It makes each atomic step many times slower and, while
// one goroutine works, has nothing to find: such a test tries less under it, and make test runs it without.
const RaceDetector = true
