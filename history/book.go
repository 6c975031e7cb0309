package history

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/metrics"
	"sluice/record"
)

// Book is all series of a process, what happened meanwhile, and the errors in groups.
type Book struct {
	parts  Parts
	saving sync.Mutex // held while the file is written

	mu      sync.Mutex
	begun   time.Time // since when it counts
	tables  [kinds]table
	marks   []Mark
	groups  map[groupKey]*Group
	seen    uint64 // the number of the last request that was added
	lost    uint64
	wrong   map[targetKey]wrongState
	happens map[string]time.Time // when an error of a kind last was
}

// Parts are what a Book works with.
type Parts struct {
	Ring     *record.Ring
	InFlight func() int64
	States   func() []metrics.UpstreamState
	Log      *slog.Logger
	// Path is the file that keeps the long series over a restart; "" for none.
	Path string
}

// New makes a Book, with what its file has. A file that cannot be read is logged and ignored.
func New(parts Parts) *Book {
	b := &Book{parts: parts, begun: time.Now(), groups: map[groupKey]*Group{}, wrong: map[targetKey]wrongState{}, happens: map[string]time.Time{}}
	for i := range b.tables {
		b.tables[i] = table{most: most[i], tracks: map[string]*track{}}
	}
	b.load()
	b.Mark("start", "sluice started")
	return b
}

const (
	// The record is looked at this often: seldom while little happens, often enough that no request is
	// overwritten before it was added.
	lookSeldom, lookOften = 250 * time.Millisecond, 10 * time.Millisecond
	// gaugesEvery is how often gauges are read at most. Reading them takes less than a part gaugesPart of the
	// time, unless that were less often than gaugesSeldom: each step of the first tier has a reading.
	gaugesEvery, gaugesSeldom, gaugesPart = time.Second, 5 * time.Second, 500
	// sweepEvery is how often series are dropped that have nothing left.
	sweepEvery = 10 * time.Minute
	// saveEvery is how often the file is written.
	saveEvery = 5 * time.Minute
)

// Start has the Book follow the record until stop is called, which returns when it does so no more.
func (b *Book) Start() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		b.run(ctx)
	}()
	return func() {
		cancel()
		<-ended
	}
}

func (b *Book) run(ctx context.Context) {
	now := time.Now()
	look, pause := time.NewTimer(lookSeldom), lookSeldom
	defer look.Stop()
	gauges, sweep, save := now, now.Add(sweepEvery), now.Add(saveEvery)
	for {
		select {
		case <-ctx.Done():
			b.Look(time.Now())
			return
		case now = <-look.C:
		}
		switch n := b.Look(now); {
		case n > record.Kept/8:
			pause = max(pause/2, lookOften)
		case n < record.Kept/64:
			pause = min(pause*2, lookSeldom)
		}
		if !now.Before(gauges) {
			began := time.Now() // now may be long ago, on a busy machine
			b.Sample(now)
			gauges = now.Add(min(max(gaugesEvery, time.Since(began)*gaugesPart), gaugesSeldom))
		}
		if !now.Before(sweep) {
			sweep = now.Add(sweepEvery)
			b.sweep(now)
		}
		if !now.Before(save) {
			save = now.Add(saveEvery)
			b.Save()
		}
		look.Reset(pause)
	}
}

// Look adds the requests that have ended since the last look, and returns how many.
func (b *Book) Look(now time.Time) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	before := b.seen
	last, lost := b.parts.Ring.Since(before, func(v record.View) { b.add(v, now) })
	b.seen, b.lost = last, b.lost+lost
	return int(last - before)
}

// add counts one request.
func (b *Book) add(v record.View, now time.Time) {
	r := v.Request()
	family := familyOf(r.Error)
	count := func(c *cell) {
		c.Requests++
		if family >= 0 {
			c.Errors[family]++
		}
		c.TokensIn += uint32(min(r.TokensIn, 1<<24))
		c.TokensOut += uint32(min(r.TokensOut, 1<<24))
		c.took.observe(r.Took)
		if r.FirstByte > 0 {
			c.first.observe(r.FirstByte)
		}
	}
	b.tables[Total].track(Names[Total], now).each(now, count)
	if r.Tried > 0 { // else the name may be no model's
		b.tables[Model].track(r.Model, now).each(now, count)
	}
	if r.Key != "" {
		t := b.tables[Key].track(r.Key, now)
		if t.name != Others {
			t.label = r.KeyName
		}
		t.each(now, count)
	}
	if r.Error != "" {
		b.tables[Error].track(r.Error, now).each(now, count)
		b.group(v, now)
		b.begins(r.Error, now)
	}
	for i := range r.Attempts {
		b.addAttempt(r, i, now)
	}
}

// addAttempt counts an attempt for its upstream and its target. The last one has the answer's tokens.
func (b *Book) addAttempt(r *record.Request, i int, now time.Time) {
	a := &r.Attempts[i]
	count := func(c *cell) {
		c.Requests++
		switch {
		case a.Cause == "":
			c.first.observe(a.Took)
		case !a.Ended:
			c.Errors[familyUpstream]++
		}
		if i == len(r.Attempts)-1 {
			c.took.observe(r.Took - a.After)
			c.TokensIn += uint32(min(r.TokensIn, 1<<24))
			c.TokensOut += uint32(min(r.TokensOut, 1<<24))
		} else {
			c.took.observe(a.Took)
		}
	}
	b.tables[Upstream].track(a.Upstream, now).each(now, count)
	b.tables[Target].track(targetName(a.Model, a.Upstream), now).each(now, count)
}

func targetName(model, upstream string) string { return model + " at " + upstream }

const familyUpstream = 2

// familyOf is the place in Families of a kind's, -1 for none.
func familyOf(kind string) int {
	family, _, _ := strings.Cut(kind, "_")
	return slices.Index(Families[:], family)
}

func (b *Book) sweep(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range b.tables {
		b.tables[i].sweep(now)
	}
}

// Bytes is how much memory the series have.
func (b *Book) Bytes() (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range b.tables {
		for _, t := range b.tables[i].tracks {
			n += t.bytes()
		}
		if t := b.tables[i].others; t != nil {
			n += t.bytes()
		}
	}
	return n
}
