//go:build !race

package upstreamtest

// RaceDetector is whether the race detector watches.
const RaceDetector = false
