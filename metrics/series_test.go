package metrics

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// count is how many series of models and upstreams there are.
func count(t *testing.T, m *Metrics) (n int) {
	t.Helper()
	families, err := m.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, series := range f.Metric {
			for _, label := range series.Label {
				if name := label.GetName(); name == "model" || name == "upstream" {
					n++
					break
				}
			}
		}
	}
	return n
}

// all returns what counts in every series that a model and an upstream can have.
func all(s *Series, model, upstream string) (count func()) {
	target, u := s.Target(model, upstream), s.Upstream(upstream)
	counters := []*Counter{&target.Attempts, s.Fallbacks(model), u.Retries(), u.RetriesRefused(), u.Failures("timeout"), u.Failures("reset")}
	return func() {
		for _, c := range counters {
			c.Inc()
		}
		for class := range classes {
			target.Done(&Request{Status: 100 * class, FirstByte: time.Second, TokensIn: 1, TokensOut: 1})
		}
		target.Between(time.Second)
	}
}

// each is how many series that are.
const each = 6 + len(classes) + 2 + 4

// TestReloadsWithNewNamesStayBounded: what is gone leaves nothing behind.
func TestReloadsWithNewNamesStayBounded(t *testing.T) {
	m := New()
	for i := range 1000 {
		s := m.Series()
		all(s, "always", "there")()
		all(s, fmt.Sprint("model", i), fmt.Sprint("upstream", i))()
		s.Adopt()
	}
	if n := count(t, m); n != 2*each {
		t.Errorf("%d series", n)
	}
	groups := m.inUse.Load().groups
	if n := len(groups); n != 6 {
		t.Errorf("%d groups", n)
	}
	for o, g := range groups {
		if len(g.made) > each {
			t.Errorf("%v has made %d series", o, len(g.made))
		}
	}
	m.Series().Adopt()
	if n := count(t, m); n != 0 {
		t.Errorf("%d series of nothing", n)
	}
}

// TestCountingWhileSeriesGo: what counts for a model that was removed does so nowhere, whether it has
// counted before or not, and the model's series begin anew when it comes again.
func TestCountingWhileSeriesGo(t *testing.T) {
	m := New()
	for round := range 200 {
		s := m.Series()
		count1, count2 := all(s, "m", "u"), all(s, "m", "u")
		s.Adopt()
		var counting sync.WaitGroup
		for range 2 {
			counting.Go(count1)
			counting.Go(count2)
		}
		m.Series().Adopt()
		counting.Wait()
		count1()
		if n := count(t, m); n != 0 {
			t.Fatalf("round %d: %d series of a model that was removed", round, n)
		}
	}
	s := m.Series()
	all(s, "m", "u")()
	s.Adopt()
	if n := testutil.ToFloat64(m.attempts.WithLabelValues("m", "u")); n != 1 || count(t, m) != each {
		t.Errorf("%v attempts in %d series", n, count(t, m))
	}
}

// TestSeriesLiveOn through reloads that keep their model, whatever else those do.
func TestSeriesLiveOn(t *testing.T) {
	m := New()
	for i := range 3 {
		s := m.Series()
		again, other := all(s, "m", "u"), all(s, fmt.Sprint("m", i), "u")
		again()
		other()
		s.Adopt()
		again()
	}
	if n := testutil.ToFloat64(m.attempts.WithLabelValues("m", "u")); n != 6 {
		t.Errorf("%v attempts", n)
	}
	if n := testutil.ToFloat64(m.retries.WithLabelValues("u")); n != 9 {
		t.Errorf("%v retries", n)
	}
}

// TestIdleSeriesAreNone: to build a configuration makes no series.
func TestIdleSeriesAreNone(t *testing.T) {
	m := New()
	s := m.Series()
	all(s, "m", "u")
	s.Adopt()
	if n := count(t, m); n != 0 {
		t.Errorf("%d series", n)
	}
}

func BenchmarkRequest(b *testing.B) {
	target := New().Series().Target("m", "u")
	b.ReportAllocs()
	for b.Loop() {
		target.Attempts.Inc()
		target.Done(&Request{Status: 200, Took: time.Second, FirstByte: time.Second, Overhead: 50 * time.Microsecond, TokensIn: 7, TokensOut: 7})
	}
}
