//go:build race

package limiter

const raceDetector = true
