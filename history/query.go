package history

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"time"
)

// ranges are what can be asked for.
var ranges = []struct {
	name string
	span time.Duration
	tier int
}{
	{"1m", time.Minute, 0}, {"15m", 15 * time.Minute, 0}, {"1h", time.Hour, 0}, {"24h", 24 * time.Hour, 1}, {"7d", 7 * 24 * time.Hour, 2},
}

// Ranges are their names.
func Ranges() (names []string) {
	for _, r := range ranges {
		names = append(names, r.name)
	}
	return names
}

// Query is what is wanted of a Book.
type Query struct {
	Range string // one of Ranges
	By    By
	// Names are the series that are wanted; where there are none, the Top that had most requests.
	Names []string
	Top   int
}

// Column is the values of one thing, one for each time. NaN is null.
type Column []float64

// MarshalJSON writes numbers as short as they can be.
func (c Column) MarshalJSON() ([]byte, error) {
	b := []byte{'['}
	for i, v := range c {
		if i > 0 {
			b = append(b, ',')
		}
		switch {
		case math.IsNaN(v):
			b = append(b, "null"...)
		case v == math.Trunc(v):
			b = strconv.AppendInt(b, int64(v), 10)
		default:
			b = strconv.AppendFloat(b, v, 'g', 4, 64)
		}
	}
	return append(b, ']'), nil
}

// Line is one series. A column in which nothing was counted is absent.
type Line struct {
	Name  string            `json:"name"`
	Label string            `json:"label,omitempty"`
	Sum   int64             `json:"sum"` // of the requests
	Value map[string]Column `json:"values"`
}

// Answer is what a Book says to a Query.
type Answer struct {
	Object string  `json:"object"`
	Range  string  `json:"range"`
	By     string  `json:"by"`
	Step   float64 `json:"step_seconds"`
	// LastStep is how much of its step the last value covers.
	LastStep float64 `json:"last_step_seconds"`
	Times    []int64 `json:"times"` // of the steps' beginnings, Unix
	// Since is when counting began, Unix: before it nothing is known, which is not zero.
	Since int64  `json:"since"`
	Data  []Line `json:"data"`
	Left  int    `json:"left_out"` // series beyond Top
	Marks []Mark `json:"marks"`
	// Lost are requests that came too fast to be added since the start.
	Lost  uint64 `json:"lost"`
	Bytes int    `json:"memory_bytes"`
	Limit int    `json:"memory_limit_bytes"`
}

// ParseRange reports whether there is such a range.
func ParseRange(name string) bool { return slices.Contains(Ranges(), name) }

// ParseBy reads the name of a By.
func ParseBy(name string) (By, bool) {
	i := slices.Index(Names[:], name)
	return By(max(i, 0)), i >= 0
}

// Answer answers q at now.
func (b *Book) Answer(q Query, now time.Time) *Answer {
	b.Look(now) // what has ended is in it
	size := b.Bytes()
	b.mu.Lock()
	defer b.mu.Unlock()
	r := ranges[slices.IndexFunc(ranges, func(r struct {
		name string
		span time.Duration
		tier int
	}) bool {
		return r.name == q.Range
	})]
	shape := shapes[r.tier]
	n := int(r.span / shape.step)
	last := stepAt(shape, now)
	step := int64(shape.step / time.Second)
	a := &Answer{Object: "series", Range: r.name, By: Names[q.By], Step: shape.step.Seconds(), Data: []Line{}, Marks: []Mark{},
		LastStep: math.Max(1, now.Sub(time.Unix(int64(last)*step, 0)).Seconds()), Lost: b.lost, Bytes: size, Limit: MemoryLimit}
	for i := range n {
		a.Times = append(a.Times, (int64(last)-int64(n-1-i))*step)
	}
	a.Since = b.since(r.tier)
	for _, m := range b.marks {
		if m.At.Unix() >= a.Times[0] {
			a.Marks = append(a.Marks, m)
		}
	}
	first := b.first(q, r.tier, n, last, now)
	if len(q.Names) == 0 && len(first) > q.Top {
		a.Left = len(first) - q.Top
		first = first[:q.Top]
	}
	for _, t := range first {
		a.Data = append(a.Data, t.tiers[r.tier].line(n, last))
		line := &a.Data[len(a.Data)-1]
		line.Name, line.Label = t.name, t.label
	}
	return a
}

// first are the series that are wanted and have something in the n steps that end with last, those with
// the most requests first.
func (b *Book) first(q Query, tier, n int, last uint32, now time.Time) (list []*track) {
	sums := map[*track]int64{}
	for _, t := range b.wanted(q) {
		t.roll(now)
		any := false
		t.tiers[tier].within(n, last, func(p *Point) {
			any = true
			sums[t] += int64(p.Requests)
		})
		if any {
			list = append(list, t)
		}
	}
	slices.SortFunc(list, func(x, y *track) int { return cmp.Or(cmp.Compare(sums[y], sums[x]), cmp.Compare(x.name, y.name)) })
	return list
}

// since is from when on a tier has counts: the start, or the oldest that was kept over it.
func (b *Book) since(tier int) int64 {
	since := b.begun.Unix()
	for i := range b.tables {
		for _, t := range b.tables[i].tracks {
			if points := t.tiers[tier].points; len(points) > 0 {
				since = min(since, int64(points[0].Step)*int64(shapes[tier].step/time.Second))
			}
		}
	}
	return since
}

func (b *Book) wanted(q Query) (list []*track) {
	tb := &b.tables[q.By]
	if len(q.Names) > 0 {
		for _, name := range q.Names {
			if t := tb.tracks[name]; t != nil {
				list = append(list, t)
			}
		}
		return list
	}
	for _, t := range tb.tracks {
		list = append(list, t)
	}
	if tb.others != nil {
		list = append(list, tb.others)
	}
	return list
}

// within calls f for each point among the n steps that end with last.
func (t *tier) within(n int, last uint32, f func(*Point)) {
	for i := range t.points {
		if p := &t.points[i]; p.Step <= last && int(last-p.Step) < n {
			f(p)
		}
	}
	if p := t.open.point(); t.open.used && p.Step <= last && int(last-p.Step) < n {
		f(&p)
	}
}

// line spreads the points over the n steps that end with last.
func (t *tier) line(n int, last uint32) (line Line) {
	steps := make([]Point, n)
	t.within(n, last, func(p *Point) { steps[n-1-int(last-p.Step)].add(p) })
	line.Value = map[string]Column{}
	set := func(name string, of func(*Point) float64) {
		column, some := make(Column, n), false
		for i := range steps {
			column[i] = of(&steps[i])
			some = some || column[i] > 0
		}
		if some {
			line.Value[name] = column
		}
	}
	set("requests", func(p *Point) float64 { return float64(p.Requests) })
	for i, family := range Families {
		set("errors_"+family, func(p *Point) float64 { return float64(p.Errors[i]) })
	}
	set("tokens_in", func(p *Point) float64 { return float64(p.TokensIn) })
	set("tokens_out", func(p *Point) float64 { return float64(p.TokensOut) })
	set("in_flight", func(p *Point) float64 { return float64(p.Peak) })
	set("breaker", func(p *Point) float64 { return float64(p.Breaker) })
	set("duration_p50", func(p *Point) float64 { return unpackTime(p.P50) })
	set("duration_p99", func(p *Point) float64 { return unpackTime(p.P99) })
	set("first_byte_p50", func(p *Point) float64 { return unpackTime(p.First50) })
	set("first_byte_p99", func(p *Point) float64 { return unpackTime(p.First99) })
	for i := range steps {
		line.Sum += int64(steps[i].Requests)
	}
	return line
}
