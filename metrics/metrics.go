// Package metrics declares every series that the gateway exports. Names begin with
// sluice_, units are base units, labels have few values: a model, an upstream, a status
// class, an error code.
package metrics

import (
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

	retries        *prometheus.CounterVec
	retriesRefused *prometheus.CounterVec
	fallbacks      *prometheus.CounterVec

	// Panics counts requests that ended in a recovered panic.
	Panics prometheus.Counter
	// BrokenStreams counts streams that ended in an error event.
	BrokenStreams prometheus.Counter
	// AccessLinesDropped counts lines of the access log that found no room.
	AccessLinesDropped prometheus.Counter
	// CancelledUpstreams counts upstream requests ended because the client had left.
	CancelledUpstreams prometheus.Counter

	reloads    *prometheus.CounterVec
	reloadOK   prometheus.Gauge
	reloadedAt prometheus.Gauge
	generation prometheus.Gauge
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
		retries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_retries_total", Help: "Further tries of a target that had failed the same request.",
		}, []string{"upstream"}),
		retriesRefused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_retries_refused_total", Help: "Further tries that were not made because the upstream's retry budget was spent.",
		}, []string{"upstream"}),
		fallbacks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_fallbacks_total", Help: "Requests that turned to the model after another had failed them.",
		}, []string{"model"}),
		Panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_panics_total", Help: "Requests that ended in a recovered panic.",
		}),
		BrokenStreams: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_broken_streams_total", Help: "Streams that ended in an error event.",
		}),
		CancelledUpstreams: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_cancelled_upstreams_total", Help: "Upstream requests ended because the client had left.",
		}),
		AccessLinesDropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_access_log_dropped_total", Help: "Lines of the access log that were dropped because they came faster than they could be written.",
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
	}
	m.Registry.MustRegister(m.requests, m.duration, m.failures, m.refused,
		m.retries, m.retriesRefused, m.fallbacks, m.Panics, m.BrokenStreams, m.AccessLinesDropped, m.CancelledUpstreams,
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

// Retry is the counter of retries sent to upstream.
func (m *Metrics) Retry(upstream string) prometheus.Counter {
	return m.retries.WithLabelValues(upstream)
}

// RetryRefused is the counter of retries that upstream's budget did not allow.
func (m *Metrics) RetryRefused(upstream string) prometheus.Counter {
	return m.retriesRefused.WithLabelValues(upstream)
}

// Fallback is the counter of requests that fell back to model.
func (m *Metrics) Fallback(model string) prometheus.Counter {
	return m.fallbacks.WithLabelValues(model)
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

// Upstream is what the gauges show of an upstream.
type Upstream struct {
	Name        string
	InFlight    int64
	Connections int
	Targets     []UpstreamTarget
}

// UpstreamTarget is what the gauges show of a target.
type UpstreamTarget struct {
	Model, Name string
	Breaker     int // 0 closed, 1 half open, 2 open
}

// Upstreams exports what read tells whenever it is asked for.
func (m *Metrics) Upstreams(read func() []Upstream) { m.Registry.MustRegister(upstreams(read)) }

type upstreams func() []Upstream

var (
	upstreamInFlight    = prometheus.NewDesc("sluice_upstream_in_flight", "Requests in flight at the upstream.", []string{"upstream"}, nil)
	upstreamConnections = prometheus.NewDesc("sluice_upstream_connections", "Connections to the upstream, idle ones among them.", []string{"upstream"}, nil)
	breakerState        = prometheus.NewDesc("sluice_breaker_state", "A target's breaker: 0 closed, 1 half open, 2 open.",
		[]string{"model", "upstream", "target"}, nil)
)

// Describe names the series.
func (upstreams) Describe(to chan<- *prometheus.Desc) {
	to <- upstreamInFlight
	to <- upstreamConnections
	to <- breakerState
}

// Collect reads them.
func (read upstreams) Collect(to chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for _, u := range read() {
		gauge(upstreamInFlight, float64(u.InFlight), u.Name)
		gauge(upstreamConnections, float64(u.Connections), u.Name)
		for _, t := range u.Targets {
			gauge(breakerState, float64(t.Breaker), t.Model, u.Name, t.Name)
		}
	}
}
