// Package metrics declares every series that the gateway exports. Names begin with
// sluice_, units are base units, labels have few values: a model, an upstream, a status
// class, an error code.
package metrics

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// Metrics is one process's series.
type Metrics struct {
	Registry *prometheus.Registry

	inUse     atomic.Pointer[Series]
	upstreams func() []UpstreamState

	requests  *family[prometheus.Counter]
	duration  *family[prometheus.Observer]
	firstByte *family[prometheus.Observer]
	overhead  *family[prometheus.Observer]
	between   *family[prometheus.Observer]
	tokens    *family[prometheus.Counter]
	attempts  *family[prometheus.Counter]
	failures  *family[prometheus.Counter]

	retries        *family[prometheus.Counter]
	retriesRefused *family[prometheus.Counter]
	fallbacks      *family[prometheus.Counter]

	errors  *prometheus.CounterVec
	refused *prometheus.CounterVec

	// Panics counts requests that ended in a recovered panic.
	Panics prometheus.Counter
	// BrokenStreams counts streams that ended in an error event.
	BrokenStreams prometheus.Counter
	// AccessLinesDropped counts lines of the access log that found no room or could not be written.
	AccessLinesDropped prometheus.Counter
	// LogLinesDropped counts lines of the program's own log that could not be written.
	LogLinesDropped prometheus.Counter
	// CancelledUpstreams counts upstream requests ended because the client had left.
	CancelledUpstreams prometheus.Counter
	// AdminLoginFailures counts requests to the admin port without the right token.
	AdminLoginFailures prometheus.Counter

	reloads    *prometheus.CounterVec
	reloadOK   prometheus.Gauge
	reloadedAt prometheus.Gauge
	generation prometheus.Gauge
}

// New declares the series.
func New() *Metrics {
	m := &Metrics{Registry: prometheus.NewRegistry()}
	m.inUse.Store(&Series{metrics: m})
	m.declareRequests()
	m.declareProcess()
	m.Registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// The buckets of histograms. Each is a series for each model and upstream, so they are few.
var (
	// modelBuckets suit what takes as long as a model does.
	modelBuckets = []float64{.005, .025, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300}
	// ownBuckets suit what the gateway itself takes. One of them is the threshold of an alert.
	ownBuckets = []float64{.00001, .000025, .00005, .0001, .00025, .0005, .001, .005, .025, .25}
	// eventBuckets suit the time between two tokens.
	eventBuckets = []float64{.005, .01, .025, .05, .1, .25, .5, 1, 5, 30}
)

// declareRequests declares what is counted by model and upstream.
func (m *Metrics) declareRequests() {
	m.requests = counters("sluice_requests_total",
		"Requests that were sent to an upstream, by the class of the status that the client got.", "model", "upstream", "class")
	m.duration = histograms("sluice_request_duration_seconds",
		"Time from a request's head to the last byte of its answer.", modelBuckets, "model", "upstream")
	m.firstByte = histograms("sluice_first_byte_seconds",
		"Time from a request's head to that of its answer.", modelBuckets, "model", "upstream")
	m.overhead = histograms("sluice_overhead_seconds",
		"The gateway's own part of the time to the answer's head, without attempts and waits.", ownBuckets, "model", "upstream")
	m.between = histograms("sluice_event_interval_seconds",
		"Time between two events of a stream that did not come together.", eventBuckets, "model", "upstream")
	m.tokens = counters("sluice_tokens_total",
		"Tokens used, as reported by upstreams, by direction: in or out.", "model", "upstream", "direction")
	m.attempts = counters("sluice_attempts_total", "Attempts to have a request answered by an upstream.", "model", "upstream")
	m.failures = counters("sluice_upstream_failures_total", "Attempts that failed, by cause.", "upstream", "cause")
	m.retries = counters("sluice_retries_total", "Retries of a target that had failed the same request.", "upstream")
	m.retriesRefused = counters("sluice_retries_refused_total",
		"Retries that were not made because the upstream's retry budget was spent.", "upstream")
	m.fallbacks = counters("sluice_fallbacks_total", "Requests that fell back to the model after another had failed.", "model")
	m.Registry.MustRegister(m.requests, m.duration, m.firstByte, m.overhead, m.between, m.tokens, m.attempts,
		m.failures, m.retries, m.retriesRefused, m.fallbacks)
}

// declareProcess declares what is counted for the whole process. These series are few, and begin
// at zero.
func (m *Metrics) declareProcess() {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	counters := func(name, help, label string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	m.errors = counters("sluice_errors_total", "Requests that did not end in a complete 2xx response, by kind of error.", "kind")
	m.refused = counters("sluice_refused_total", "Requests that the gateway answered with an error of its own, by error code.", "code")
	m.Panics = counter("sluice_panics_total", "Requests that ended in a recovered panic.")
	m.BrokenStreams = counter("sluice_broken_streams_total", "Streams that ended in an error event.")
	m.CancelledUpstreams = counter("sluice_cancelled_upstreams_total", "Upstream requests ended because the client had left.")
	m.AccessLinesDropped = counter("sluice_access_log_dropped_total",
		"Lines of the access log that came faster than they could be written, or could not be written at all.")
	m.LogLinesDropped = counter("sluice_log_dropped_total", "Lines of the program's own log that could not be written to stderr.")
	m.AdminLoginFailures = counter("sluice_admin_login_failures_total", "Requests to the admin port without the right token.")
	m.reloads = counters("sluice_config_reloads_total", "Attempts to reload the configuration, by result.", "result")
	for _, result := range []string{"success", "failure"} {
		m.reloads.WithLabelValues(result)
	}
	m.reloadOK = gauge("sluice_config_last_reload_successful", "1 if the newest content of the file is in effect, 0 if it was refused.")
	m.reloadedAt = gauge("sluice_config_last_reload_success_timestamp_seconds", "When the configuration in effect was loaded.")
	m.generation = gauge("sluice_config_generation", "How many configurations have taken effect since the start.")
	m.Registry.MustRegister(m.errors, m.refused, m.Panics, m.BrokenStreams, m.AccessLinesDropped, m.LogLinesDropped, m.CancelledUpstreams,
		m.AdminLoginFailures, m.reloads, m.reloadOK, m.reloadedAt, m.generation)
}

// Error is the counter of requests without a whole good answer, of one kind.
func (m *Metrics) Error(kind string) prometheus.Counter { return m.errors.WithLabelValues(kind) }

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
