// Package history keeps what the gateway has counted over the last minutes, hours and days, in a bounded
// amount of memory. It follows the record of requests that are over, so that a request pays nothing for it.
package history

import (
	"math"
	"time"
)

// tierShape is how long a step of a tier is and how many of them are kept.
type tierShape struct {
	step time.Duration
	keep int
}

// shapes are the tiers: an hour of ten seconds, a day of minutes, a week of ten minutes.
var shapes = [...]tierShape{{10 * time.Second, 360}, {time.Minute, 1440}, {10 * time.Minute, 1008}}

// Families are whose fault an error is: the first part of its kind.
var Families = [...]string{"caller", "policy", "upstream", "gateway"}

// Point is what was counted in one step.
type Point struct {
	Step                uint32 // its number since 1970, in steps
	Requests            uint32
	Errors              [len(Families)]uint32
	TokensIn, TokensOut uint32
	// Quantiles of the time to the last byte and to the answer's head; see packTime.
	P50, P99, First50, First99 uint16
	Peak                       uint16 // in flight
	Breaker                    uint8  // the worst state: 0 closed, 1 half open, 2 open
}

// add adds q, which is of the same step, to p. A quantile becomes the larger one.
func (p *Point) add(q *Point) {
	p.Requests += q.Requests
	for i := range p.Errors {
		p.Errors[i] += q.Errors[i]
	}
	p.TokensIn, p.TokensOut = p.TokensIn+q.TokensIn, p.TokensOut+q.TokensOut
	p.P50, p.P99 = max(p.P50, q.P50), max(p.P99, q.P99)
	p.First50, p.First99 = max(p.First50, q.First50), max(p.First99, q.First99)
	p.Peak, p.Breaker = max(p.Peak, q.Peak), max(p.Breaker, q.Breaker)
}

// packTime puts a duration into 16 bits, to 0.04%; 0 stands for none.
func packTime(d time.Duration) uint16 {
	if d <= 0 {
		return 0
	}
	return uint16(min(1+math.Log(max(1, float64(d)/1e3))*packScale, math.MaxUint16))
}

// packScale spreads the logarithms of a microsecond to ten hours over 16 bits.
const packScale = 65534 / 24.31

func unpackTime(n uint16) float64 {
	if n == 0 {
		return math.NaN()
	}
	return math.Exp(float64(n-1)/packScale) / 1e6
}

// histogram counts durations in buckets, each half again as wide as the one before.
type histogram [38]uint32

const (
	firstBucket = 500 * time.Microsecond
	bucketRatio = 1.5
)

func (h *histogram) observe(d time.Duration) {
	i := 0
	if d > firstBucket {
		i = min(1+int(math.Log(float64(d)/float64(firstBucket))/math.Log(bucketRatio)), len(h)-1)
	}
	h[i]++
}

// quantile is that of what was observed, taken to lie evenly within a bucket; 0 for nothing.
func (h *histogram) quantile(q float64) time.Duration {
	total := uint32(0)
	for _, n := range h {
		total += n
	}
	below, low, high := 0.0, 0.0, float64(firstBucket)
	for _, n := range h {
		if n > 0 && below+float64(n) >= q*float64(total) {
			return time.Duration(low + (high-low)*(q*float64(total)-below)/float64(n))
		}
		below, low, high = below+float64(n), high, high*bucketRatio
	}
	return 0
}

// cell is a step that is not over yet.
type cell struct {
	Point
	took, first histogram
	used        bool // something was counted
}

// point closes the cell.
func (c *cell) point() Point {
	p := c.Point
	p.P50, p.P99 = packTime(c.took.quantile(0.5)), packTime(c.took.quantile(0.99))
	p.First50, p.First99 = packTime(c.first.quantile(0.5)), packTime(c.first.quantile(0.99))
	return p
}

// tier is one series at one step length: the points that are not empty, and the step under way.
type tier struct {
	points []Point // in the order of their steps
	open   cell
}

// roll makes the step at now the open one.
func (t *tier) roll(shape tierShape, now time.Time) {
	step := stepAt(shape, now)
	if t.open.Step == step {
		return
	}
	if t.open.used {
		t.keep(shape, t.open.point())
	}
	t.open = cell{Point: Point{Step: step}}
	t.trim(shape, step)
}

func stepAt(shape tierShape, now time.Time) uint32 {
	return uint32(now.Unix() / int64(shape.step/time.Second))
}

// keep appends a point. The room for points grows with them, to what the tier keeps.
func (t *tier) keep(shape tierShape, p Point) {
	if len(t.points) == cap(t.points) && cap(t.points) < shape.keep {
		room := make([]Point, len(t.points), min(max(8, 2*cap(t.points)), shape.keep))
		copy(room, t.points)
		t.points = room
	}
	if len(t.points) >= shape.keep {
		t.points = t.points[:copy(t.points, t.points[1:])]
	}
	t.points = append(t.points, p)
}

// trim drops the points that are too old at step.
func (t *tier) trim(shape tierShape, step uint32) {
	old := 0
	for old < len(t.points) && t.points[old].Step+uint32(shape.keep) < step {
		old++
	}
	if old == len(t.points) {
		t.points = nil
	} else if old > 0 {
		t.points = t.points[:copy(t.points, t.points[old:])]
	}
}
