// Package metrics declares every series that the gateway exports. Names begin with
// sluice_, units are base units, labels have few values: a model, an upstream, a status
// class, an error code.
package metrics

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// Metrics is one process's series.
type Metrics struct {
	Registry *prometheus.Registry

	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	failures *prometheus.CounterVec
	refused  *prometheus.CounterVec

	// Panics counts requests that ended in a recovered panic.
	Panics prometheus.Counter
	// BrokenStreams counts streams that ended in an error event.
	BrokenStreams prometheus.Counter
	// CancelledUpstreams counts upstream requests ended because the client had left.
	CancelledUpstreams prometheus.Counter

	reloads    *prometheus.CounterVec
	reloadOK   prometheus.Gauge
	reloadedAt prometheus.Gauge
	generation prometheus.Gauge

	mu        sync.Mutex
	upstreams map[string][]prometheus.Collector
}

// New declares the series.
func New() *Metrics {
	m := &Metrics{
		Registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_requests_total", Help: "Requests that an upstream was asked for, by the status class the client got.",
		}, []string{"model", "upstream", "class"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "sluice_request_duration_seconds", Help: "Time from a request's head to the last byte of its answer.",
			Buckets: []float64{.001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600},
		}, []string{"model", "upstream"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_upstream_failures_total", Help: "Attempts that failed, by cause.",
		}, []string{"upstream", "cause"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_refused_total", Help: "Requests that the gateway answered with an error of its own, by error code.",
		}, []string{"code"}),
		Panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_panics_total", Help: "Requests that ended in a recovered panic.",
		}),
		BrokenStreams: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_broken_streams_total", Help: "Streams that ended in an error event.",
		}),
		CancelledUpstreams: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_cancelled_upstreams_total", Help: "Upstream requests ended because the client had left.",
		}),
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_config_reloads_total", Help: "Attempts to reload the configuration, by result.",
		}, []string{"result"}),
		reloadOK: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sluice_config_last_reload_successful", Help: "1 if the newest content of the file is in effect, 0 if it was refused.",
		}),
		reloadedAt: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sluice_config_last_reload_success_timestamp_seconds", Help: "When the configuration in effect was loaded.",
		}),
		generation: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sluice_config_generation", Help: "How many configurations have taken effect since the start.",
		}),
		upstreams: map[string][]prometheus.Collector{},
	}
	m.Registry.MustRegister(m.requests, m.duration, m.failures, m.refused, m.Panics, m.BrokenStreams, m.CancelledUpstreams,
		m.reloads, m.reloadOK, m.reloadedAt, m.generation,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Target is the series of one model at one upstream, looked up once.
type Target struct {
	byClass  [6]prometheus.Counter // index: status / 100
	duration prometheus.Observer
}

// Target looks the series of one model at one upstream up.
func (m *Metrics) Target(model, upstream string) *Target {
	t := &Target{duration: m.duration.WithLabelValues(model, upstream)}
	for i, class := range []string{"other", "1xx", "2xx", "3xx", "4xx", "5xx"} {
		t.byClass[i] = m.requests.WithLabelValues(model, upstream, class)
	}
	return t
}

// Done counts a request that ended with status after d.
func (t *Target) Done(status int, d time.Duration) {
	class := status / 100
	if class < 1 || class > 5 {
		class = 0
	}
	t.byClass[class].Inc()
	t.duration.Observe(d.Seconds())
}

// Failure is the counter of upstream's attempts that failed with cause.
func (m *Metrics) Failure(upstream, cause string) prometheus.Counter {
	return m.failures.WithLabelValues(upstream, cause)
}

// Refused is the counter of requests refused with an error code.
func (m *Metrics) Refused(code string) prometheus.Counter { return m.refused.WithLabelValues(code) }

// Reloaded records an attempt to reload.
func (m *Metrics) Reloaded(ok bool, generation int, loadedAt time.Time) {
	result := map[bool]string{true: "success", false: "failure"}[ok]
	m.reloads.WithLabelValues(result).Inc()
	m.Loaded(ok, generation, loadedAt)
}

// Loaded records what is in effect.
func (m *Metrics) Loaded(ok bool, generation int, loadedAt time.Time) {
	m.reloadOK.Set(map[bool]float64{true: 1}[ok])
	m.reloadedAt.Set(float64(loadedAt.UnixMilli()) / 1000)
	m.generation.Set(float64(generation))
}

// Gauge exports a value that is read when it is asked for.
func (m *Metrics) Gauge(name, help string, read func() float64) {
	m.Registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, read))
}

// The gauges that Gauge is called for, here so that one file names every series.
const (
	InFlight     = "sluice_in_flight"
	InFlightHelp = "Requests and streams in flight."
	Keys         = "sluice_keys"
	KeysHelp     = "Gateway keys, usable or not."
)

// AddUpstream exports an upstream's gauges until RemoveUpstream.
func (m *Metrics) AddUpstream(name string, inFlight, connections func() float64) {
	labels := prometheus.Labels{"upstream": name}
	cs := []prometheus.Collector{
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "sluice_upstream_in_flight", Help: "Requests in flight at the upstream.", ConstLabels: labels}, inFlight),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "sluice_upstream_connections", Help: "Connections to the upstream, idle ones among them.", ConstLabels: labels}, connections),
	}
	m.RemoveUpstream(name)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.Registry.MustRegister(cs...)
	m.upstreams[name] = cs
}

// RemoveUpstream ends an upstream's gauges.
func (m *Metrics) RemoveUpstream(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.upstreams[name] {
		m.Registry.Unregister(c)
	}
	delete(m.upstreams, name)
}
