package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Series holds the series of the models and upstreams of one configuration. It is built aside, like
// the configuration, from what the one in use has counted; Adopt puts it in use. Series are built
// and adopted one at a time.
type Series struct {
	metrics *Metrics
	groups  map[owner]*group
}

// Series begins a configuration's series.
func (m *Metrics) Series() *Series {
	return &Series{m, make(map[owner]*group, len(m.inUse.Load().groups))}
}

// Adopt puts s in use and removes the series of what s does not have.
func (s *Series) Adopt() {
	for o, g := range s.metrics.inUse.Swap(s).groups {
		if s.groups[o] != g {
			g.remove()
		}
	}
}

func (s *Series) group(model, upstream string) *group {
	o := owner{model, upstream}
	g := s.groups[o]
	if g == nil {
		g = s.metrics.inUse.Load().groups[o]
	}
	if g == nil {
		g = &group{owner: o}
	}
	s.groups[o] = g
	return g
}

// Fallbacks counts requests that fall back to model.
func (s *Series) Fallbacks(model string) *Counter {
	return &Counter{group: s.group(model, ""), family: s.metrics.fallbacks}
}

// Upstream is the series of one upstream.
type Upstream struct {
	metrics *Metrics
	group   *group
}

// Upstream returns the series of upstream.
func (s *Series) Upstream(upstream string) Upstream {
	return Upstream{s.metrics, s.group("", upstream)}
}

// Failures counts attempts that fail with cause.
func (u Upstream) Failures(cause string) *Counter {
	return &Counter{group: u.group, family: u.metrics.failures, last: cause}
}

// Retries counts retries sent to the upstream.
func (u Upstream) Retries() *Counter {
	return &Counter{group: u.group, family: u.metrics.retries}
}

// RetriesRefused counts retries that the upstream's budget does not allow.
func (u Upstream) RetriesRefused() *Counter {
	return &Counter{group: u.group, family: u.metrics.retriesRefused}
}

// Target is the series of one model at one upstream.
type Target struct {
	// Attempts counts attempts at it.
	Attempts Counter

	metrics   *Metrics
	byClass   [len(classes)]lazy[prometheus.Counter]
	in, out   lazy[prometheus.Counter]
	duration  lazy[prometheus.Observer]
	firstByte lazy[prometheus.Observer]
	overhead  lazy[prometheus.Observer]
	between   lazy[prometheus.Observer]
}

// classes are the classes of status / 100.
var classes = [...]string{"other", "1xx", "2xx", "3xx", "4xx", "5xx"}

// Target returns the series of model at upstream.
func (s *Series) Target(model, upstream string) *Target {
	return &Target{metrics: s.metrics, Attempts: Counter{group: s.group(model, upstream), family: s.metrics.attempts}}
}

// Request is what there is to count of one that has ended.
type Request struct {
	Status    int
	Took      time.Duration
	FirstByte time.Duration // 0 without an answer's head
	Overhead  time.Duration
	TokensIn  int64
	TokensOut int64
}

// Done counts a request that has ended.
func (t *Target) Done(r *Request) {
	class := r.Status / 100
	if class < 1 || class >= len(classes) {
		class = 0
	}
	m := t.metrics
	t.count(&t.byClass[class], m.requests, classes[class], 1)
	t.observe(&t.duration, m.duration, r.Took)
	if r.FirstByte > 0 {
		t.observe(&t.firstByte, m.firstByte, r.FirstByte)
		t.observe(&t.overhead, m.overhead, r.Overhead)
	}
	if r.TokensIn > 0 {
		t.count(&t.in, m.tokens, "in", r.TokensIn)
	}
	if r.TokensOut > 0 {
		t.count(&t.out, m.tokens, "out", r.TokensOut)
	}
}

// Between observes the time between two events of a stream.
func (t *Target) Between(d time.Duration) { t.observe(&t.between, t.metrics.between, d) }

func (t *Target) count(l *lazy[prometheus.Counter], f *family[prometheus.Counter], last string, n int64) {
	l.get(t.Attempts.group, f, last).Add(float64(n))
}

func (t *Target) observe(l *lazy[prometheus.Observer], f *family[prometheus.Observer], d time.Duration) {
	l.get(t.Attempts.group, f, "").Observe(d.Seconds())
}
