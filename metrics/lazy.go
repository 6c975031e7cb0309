package metrics

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// A configuration names many models, and few of them are in use: a series exists once it has
// counted, and goes with the model or the upstream that it is about.

// family is all series of one name; their first labels are those of an owner.
type family[T any] struct {
	vec[T]
	// nowhere takes what is counted of an owner that was removed. It is not exported.
	nowhere T
}

type vec[T any] interface {
	prometheus.Collector
	deleter
	WithLabelValues(values ...string) T
}

type deleter interface {
	DeleteLabelValues(values ...string) bool
}

func counters(name, help string, labels ...string) *family[prometheus.Counter] {
	opts := prometheus.CounterOpts{Name: name, Help: help}
	return &family[prometheus.Counter]{prometheus.NewCounterVec(opts, labels), prometheus.NewCounter(opts)}
}

func histograms(name, help string, buckets []float64, labels ...string) *family[prometheus.Observer] {
	opts := prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}
	return &family[prometheus.Observer]{prometheus.NewHistogramVec(opts, labels), prometheus.NewHistogram(opts)}
}

// owner is what series are about: a model, an upstream, or a model at an upstream.
type owner struct{ model, upstream string }

// labels are the values of the labels of one of its series; last is "" for none but the owner's.
func (o owner) labels(last string) []string {
	return slices.DeleteFunc([]string{o.model, o.upstream, last}, func(s string) bool { return s == "" })
}

// group knows which series there are of one owner.
type group struct {
	owner owner

	mu      sync.Mutex
	removed bool
	made    []series
}

// series is one of a group's. It holds no pointer to what was counted.
type series struct {
	family deleter
	last   string
}

// remove ends the group's series. What still counts for it, because it began before, counts
// nowhere.
func (g *group) remove() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.removed = true
	for _, s := range g.made {
		s.family.DeleteLabelValues(g.owner.labels(s.last)...)
	}
	g.made = nil
}

// lazy is a series that is made when it first counts. From then on it costs one atomic load.
type lazy[T any] struct{ made atomic.Pointer[T] }

func (l *lazy[T]) get(g *group, f *family[T], last string) T {
	if made := l.made.Load(); made != nil {
		return *made
	}
	return l.make(g, f, last)
}

// make finds the series or makes it: others may hold the same one.
func (l *lazy[T]) make(g *group, f *family[T], last string) T {
	g.mu.Lock()
	defer g.mu.Unlock()
	made := f.nowhere
	if !g.removed {
		made = f.WithLabelValues(g.owner.labels(last)...)
		if s := (series{f, last}); !slices.Contains(g.made, s) {
			g.made = append(g.made, s)
		}
	}
	l.made.Store(&made)
	return made
}

// Counter is a counter that exists once it has counted.
type Counter struct {
	lazy[prometheus.Counter]
	group  *group
	family *family[prometheus.Counter]
	last   string // its last label, if that is not the owner's
}

// Inc counts one.
func (c *Counter) Inc() { c.get(c.group, c.family, c.last).Inc() }
