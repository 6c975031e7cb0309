package record

import (
	"cmp"
	"io"
	"math/rand/v2"
	"time"
)

// Recorder takes what is told of each request.
type Recorder struct {
	// Ring has the newest requests.
	Ring   *Ring
	access *accessLog
	clock  func() time.Duration
	errors map[string]*keptErrors
}

// Parts are what a Recorder works with.
type Parts struct {
	Access  io.Writer       // where the access log goes
	Dropped func(lines int) // counts lines of it that found no room
	Clock   func() time.Duration
	Kinds   []string // of errors
	Kept    int      // requests in the Ring; the constant Kept for 0
}

// New makes a Recorder.
func New(parts Parts) *Recorder {
	rec := &Recorder{Ring: newRing(cmp.Or(parts.Kept, Kept)), access: newAccessLog(parts.Access, parts.Dropped), clock: parts.Clock, errors: map[string]*keptErrors{}}
	for _, kind := range parts.Kinds {
		rec.errors[kind] = new(keptErrors)
	}
	return rec
}

// Start has the access log be written.
func (rec *Recorder) Start() { rec.access.start() }

// Close writes what the access log still has.
func (rec *Recorder) Close() { rec.access.close() }

// Tell records a request. rate is the part of requests that the access log has. scratch is a buffer for
// the line, which is returned.
func (rec *Recorder) Tell(r *Request, rate float64, scratch []byte) []byte {
	rec.Ring.put(r)
	if k := rec.errors[r.Error]; k != nil && k.wants(rec.clock()) {
		k.keep(owned(r))
	}
	if rate == 1 || rate > 0 && rand.Float64() < rate {
		scratch = append(appendLine(scratch[:0], r), '\n')
		rec.access.add(scratch)
	}
	return scratch
}
