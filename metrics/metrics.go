// Package metrics declares every series that the gateway exports. Names begin with
// sluice_, units are base units, labels have few values: a model, an upstream, a status
// class, an error code.
package metrics

import (
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// Metrics is one process's series.
type Metrics struct {
	Registry *prometheus.Registry

	requests  *prometheus.CounterVec
	duration  *prometheus.HistogramVec
	firstByte *prometheus.HistogramVec
	overhead  *prometheus.HistogramVec
	between   *prometheus.HistogramVec
	tokens    *prometheus.CounterVec
	attempts  *prometheus.CounterVec
	errors    *prometheus.CounterVec
	failures  *prometheus.CounterVec
	refused   *prometheus.CounterVec

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
			Buckets: seconds,
		}, []string{"model", "upstream"}),
		firstByte: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "sluice_first_byte_seconds", Help: "Time from a request's head to that of its answer.", Buckets: seconds,
		}, []string{"model", "upstream"}),
		overhead: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "sluice_overhead_seconds", Help: "The gateway's own part of that time, without attempts and waits.",
			Buckets: []float64{.00001, .000025, .00005, .0001, .00025, .0005, .001, .0025, .005, .01, .025, .1, 1},
		}, []string{"model", "upstream"}),
		between: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "sluice_event_interval_seconds", Help: "Time between two events of a stream that did not come together.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}, []string{"model", "upstream"}),
		tokens: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_tokens_total", Help: "Tokens that upstreams say they have used, by direction: in or out.",
		}, []string{"model", "upstream", "direction"}),
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_attempts_total", Help: "Attempts to have a model's request answered by an upstream.",
		}, []string{"model", "upstream"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_errors_total", Help: "Requests without a whole answer with a status of success, by whose fault that was and which.",
		}, []string{"kind"}),
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
	m.Registry.MustRegister(m.requests, m.duration, m.firstByte, m.overhead, m.between, m.tokens, m.attempts, m.errors, m.failures, m.refused,
		m.retries, m.retriesRefused, m.fallbacks, m.Panics, m.BrokenStreams, m.AccessLinesDropped, m.CancelledUpstreams,
		m.reloads, m.reloadOK, m.reloadedAt, m.generation,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// seconds are the buckets of what takes as long as a model does.
var seconds = []float64{.001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600}

// Target is the series of one model at one upstream, looked up once.
type Target struct {
	// Attempts counts attempts at it.
	Attempts  prometheus.Counter
	byClass   [6]prometheus.Counter // index: status / 100
	duration  prometheus.Observer
	firstByte prometheus.Observer
	overhead  prometheus.Observer
	between   prometheus.Observer
	in, out   prometheus.Counter
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

// Target looks the series of one model at one upstream up.
func (m *Metrics) Target(model, upstream string) *Target {
	t := &Target{
		Attempts:  m.attempts.WithLabelValues(model, upstream),
		duration:  m.duration.WithLabelValues(model, upstream),
		firstByte: m.firstByte.WithLabelValues(model, upstream),
		overhead:  m.overhead.WithLabelValues(model, upstream),
		between:   m.between.WithLabelValues(model, upstream),
		in:        m.tokens.WithLabelValues(model, upstream, "in"),
		out:       m.tokens.WithLabelValues(model, upstream, "out"),
	}
	for i, class := range []string{"other", "1xx", "2xx", "3xx", "4xx", "5xx"} {
		t.byClass[i] = m.requests.WithLabelValues(model, upstream, class)
	}
	return t
}

// Done counts a request that has ended.
func (t *Target) Done(r *Request) {
	class := r.Status / 100
	if class < 1 || class > 5 {
		class = 0
	}
	t.byClass[class].Inc()
	t.duration.Observe(r.Took.Seconds())
	if r.FirstByte > 0 {
		t.firstByte.Observe(r.FirstByte.Seconds())
		t.overhead.Observe(r.Overhead.Seconds())
	}
	if r.TokensIn > 0 {
		t.in.Add(float64(r.TokensIn))
	}
	if r.TokensOut > 0 {
		t.out.Add(float64(r.TokensOut))
	}
}

// Between observes the time between two events of a stream.
func (t *Target) Between(d time.Duration) { t.between.Observe(d.Seconds()) }

// Error is the counter of requests without a whole good answer, of one kind.
func (m *Metrics) Error(kind string) prometheus.Counter { return m.errors.WithLabelValues(kind) }

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

	Memory          = "sluice_memory_held_bytes"
	MemoryHelp      = "What counts of limits.memory: bodies that are held, and connections."
	MemoryLimit     = "sluice_memory_limit_bytes"
	MemoryLimitHelp = "limits.memory, given or found; 0 if there is none."
)

// Keys exports how many gateway keys are in each state; read tells whenever it is asked for.
func (m *Metrics) Keys(read func() map[string]int) { m.Registry.MustRegister(keyStates(read)) }

type keyStates func() map[string]int

var keysByState = prometheus.NewDesc("sluice_keys", "Gateway keys, by state: active, disabled or expired.", []string{"state"}, nil)

// Describe names the series.
func (keyStates) Describe(to chan<- *prometheus.Desc) { to <- keysByState }

// Collect reads them.
func (read keyStates) Collect(to chan<- prometheus.Metric) {
	for state, n := range read() {
		to <- prometheus.MustNewConstMetric(keysByState, prometheus.GaugeValue, float64(n), state)
	}
}

// Certificates exports until when the certificate of each port that is served over TLS holds; read
// tells whenever it is asked for.
func (m *Metrics) Certificates(read func() map[string]time.Time) {
	m.Registry.MustRegister(certificates(read))
}

type certificates func() map[string]time.Time

var certificateEnd = prometheus.NewDesc("sluice_certificate_expiry_timestamp_seconds", "Until when the certificate of a port holds: data or admin.", []string{"port"}, nil)

// Describe names the series.
func (certificates) Describe(to chan<- *prometheus.Desc) { to <- certificateEnd }

// Collect reads them.
func (read certificates) Collect(to chan<- prometheus.Metric) {
	for port, end := range read() {
		to <- prometheus.MustNewConstMetric(certificateEnd, prometheus.GaugeValue, float64(end.Unix()), port)
	}
}

// Sharing is what the gauges show of a key store that several nodes share.
type Sharing struct {
	Answers bool
	Silent  time.Duration
	Nodes   int64
}

// Sharing exports what read tells whenever it is asked for.
func (m *Metrics) Sharing(read func() Sharing) { m.Registry.MustRegister(sharing(read)) }

type sharing func() Sharing

var (
	sharedUp     = prometheus.NewDesc("sluice_shared_store_up", "1 if the shared key store answers, 0 if keys are held to what this node knows.", nil, nil)
	sharedSilent = prometheus.NewDesc("sluice_shared_store_silent_seconds", "How long ago the shared key store was last heard.", nil, nil)
	sharedNodes  = prometheus.NewDesc("sluice_shared_store_nodes", "Nodes that share the key store, as last heard.", nil, nil)
)

// Describe names the series.
func (sharing) Describe(to chan<- *prometheus.Desc) {
	to <- sharedUp
	to <- sharedSilent
	to <- sharedNodes
}

// Collect reads them.
func (read sharing) Collect(to chan<- prometheus.Metric) {
	s := read()
	to <- prometheus.MustNewConstMetric(sharedUp, prometheus.GaugeValue, map[bool]float64{true: 1}[s.Answers])
	to <- prometheus.MustNewConstMetric(sharedSilent, prometheus.GaugeValue, s.Silent.Seconds())
	to <- prometheus.MustNewConstMetric(sharedNodes, prometheus.GaugeValue, float64(s.Nodes))
}

// Build exports what this program is.
func (m *Metrics) Build(version string) {
	m.Registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "sluice_build_info", Help: "1; its labels say what runs.",
		ConstLabels: prometheus.Labels{"version": version, "go": runtime.Version()},
	}, func() float64 { return 1 }))
}

// Upstream is what the gauges show of an upstream.
type Upstream struct {
	Name        string
	InFlight    int64
	MaxInFlight int64
	Waiting     int64
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
	upstreamMax         = prometheus.NewDesc("sluice_upstream_max_in_flight", "max_in_flight of the upstream; 0 for any number.", []string{"upstream"}, nil)
	upstreamWaiting     = prometheus.NewDesc("sluice_upstream_waiting", "Requests that wait for a place at the upstream.", []string{"upstream"}, nil)
	upstreamConnections = prometheus.NewDesc("sluice_upstream_connections", "Connections to the upstream, idle ones among them.", []string{"upstream"}, nil)
	breakerState        = prometheus.NewDesc("sluice_breaker_state", "A target's breaker: 0 closed, 1 half open, 2 open.",
		[]string{"model", "upstream", "target"}, nil)
)

// Describe names the series.
func (upstreams) Describe(to chan<- *prometheus.Desc) {
	to <- upstreamInFlight
	to <- upstreamMax
	to <- upstreamWaiting
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
		gauge(upstreamMax, float64(u.MaxInFlight), u.Name)
		gauge(upstreamWaiting, float64(u.Waiting), u.Name)
		gauge(upstreamConnections, float64(u.Connections), u.Name)
		for _, t := range u.Targets {
			gauge(breakerState, float64(t.Breaker), t.Model, u.Name, t.Name)
		}
	}
}
