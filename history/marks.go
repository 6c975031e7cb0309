package history

import (
	"time"

	"sluice/metrics"
)

// Mark is something that happened at one moment.
type Mark struct {
	At   time.Time `json:"at"`
	Kind string    `json:"kind"`
	Text string    `json:"text"`
}

const (
	// maxMarks bounds what is kept, and maxMarkText each text.
	maxMarks    = 300
	maxMarkText = 300
	// quietBefore is how long there must have been no error of a kind for the next one to be marked.
	quietBefore = 10 * time.Minute
)

// Mark notes that something happens now.
func (b *Book) Mark(kind, text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mark(time.Now(), kind, text)
}

func (b *Book) mark(now time.Time, kind, text string) {
	if len(b.marks) >= maxMarks {
		b.marks = b.marks[:copy(b.marks, b.marks[1:])]
	}
	b.marks = append(b.marks, Mark{now.UTC(), kind, text[:min(len(text), maxMarkText)]})
}

// begins marks the first error of a kind after a quiet time, if it is the gateway's or an upstream's.
func (b *Book) begins(kind string, now time.Time) {
	before, known := b.happens[kind]
	b.happens[kind] = now
	if familyOf(kind) >= familyUpstream && (!known || now.Sub(before) >= quietBefore) {
		b.mark(now, "errors", kind+" began")
	}
}

// targetKey tells targets apart.
type targetKey struct{ model, upstream, target string }

// wrongState is the state of a target that is not as it should be.
type wrongState struct {
	breaker int
	refused bool
	since   time.Time
	at      time.Time // when it was last seen so
}

// Sample reads the gauges.
func (b *Book) Sample(now time.Time) {
	inFlight, states := b.parts.InFlight(), b.parts.States()
	b.mu.Lock()
	defer b.mu.Unlock()
	if inFlight > 0 {
		b.tables[Total].track(Names[Total], now).each(now, func(c *cell) { c.peak(inFlight) })
	}
	models := map[string]int64{}
	for _, u := range states {
		worst := 0
		for _, t := range u.Targets {
			worst = max(worst, t.Breaker)
			models[t.Model] += t.InFlight
			b.sampleTarget(u.Name, &t, now)
		}
		if u.InFlight > 0 || worst > 0 {
			b.tables[Upstream].track(u.Name, now).each(now, func(c *cell) { c.peak(u.InFlight); c.Breaker = max(c.Breaker, uint8(worst)) })
		}
	}
	for model, n := range models {
		if n > 0 {
			b.tables[Model].track(model, now).each(now, func(c *cell) { c.peak(n) })
		}
	}
	for key, w := range b.wrong {
		if w.at != now { // it is well again, or gone
			delete(b.wrong, key)
			b.mark(now, "recovered", targetName(key.model, key.upstream)+" serves again")
		}
	}
}

func (c *cell) peak(n int64) { c.Peak = max(c.Peak, uint16(min(n, 1<<16-1))) }

// sampleTarget notes a target's state, and marks it where it has become another.
func (b *Book) sampleTarget(upstream string, t *metrics.TargetState, now time.Time) {
	name := targetName(t.Model, upstream)
	if t.InFlight > 0 || t.Breaker > 0 {
		b.tables[Target].track(name, now).each(now, func(c *cell) { c.peak(t.InFlight); c.Breaker = max(c.Breaker, uint8(t.Breaker)) })
	}
	if t.Breaker == 0 && !t.CredentialRefused {
		return
	}
	key := targetKey{t.Model, upstream, t.Name}
	w, known := b.wrong[key]
	if !known {
		w.since = now
	}
	if t.CredentialRefused && !w.refused {
		b.mark(now, "credential", name+" refuses the gateway's credential")
	}
	if t.Breaker > 0 && w.breaker == 0 {
		b.mark(now, "breaker", "the breaker of "+name+" opened")
	}
	w.breaker, w.refused, w.at = t.Breaker, t.CredentialRefused, now
	b.wrong[key] = w
}

// Since is since when a target's breaker is not closed, or its credential refused; zero if all is well.
func (b *Book) Since(model, upstream, target string) time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.wrong[targetKey{model, upstream, target}].since
}
