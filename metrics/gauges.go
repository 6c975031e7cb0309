package metrics

import (
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

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
	Strict  bool
}

// Sharing exports what read tells whenever it is asked for.
func (m *Metrics) Sharing(read func() Sharing) { m.Registry.MustRegister(sharing(read)) }

type sharing func() Sharing

var (
	sharedUp     = prometheus.NewDesc("sluice_shared_store_up", "1 if the shared key store answers, 0 if keys are held to what this node knows.", nil, nil)
	sharedSilent = prometheus.NewDesc("sluice_shared_store_silent_seconds", "How long ago the shared key store was last heard.", nil, nil)
	sharedRule   = prometheus.NewDesc("sluice_without_store", "1 while the shared key store does not answer and this rule of keys.without_store holds: share or strict.", []string{"rule"}, nil)
	sharedNodes  = prometheus.NewDesc("sluice_shared_store_nodes", "Nodes that share the key store, as last heard.", nil, nil)
)

// Describe names the series.
func (sharing) Describe(to chan<- *prometheus.Desc) {
	to <- sharedUp
	to <- sharedSilent
	to <- sharedNodes
	to <- sharedRule
}

// Collect reads them.
func (read sharing) Collect(to chan<- prometheus.Metric) {
	s := read()
	number := map[bool]float64{true: 1}
	to <- prometheus.MustNewConstMetric(sharedUp, prometheus.GaugeValue, number[s.Answers])
	to <- prometheus.MustNewConstMetric(sharedRule, prometheus.GaugeValue, number[!s.Answers && !s.Strict], "share")
	to <- prometheus.MustNewConstMetric(sharedRule, prometheus.GaugeValue, number[!s.Answers && s.Strict], "strict")
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

// UpstreamState is what the gauges show of an upstream.
type UpstreamState struct {
	Name        string
	InFlight    int64
	MaxInFlight int64
	Waiting     int64
	Connections int
	Targets     []TargetState
}

// TargetState is what the gauges show of a target.
type TargetState struct {
	Model, Name string
	Breaker     int // 0 closed, 1 half open, 2 open
	InFlight    int64
	// CredentialRefused: it refused the gateway's credential, and has accepted none since.
	CredentialRefused bool
	Drained           bool // by an operator, or its upstream is
}

// Upstreams exports what read returns at each scrape. It returns an upstream or a target from its
// first attempt on, and not only while it differs from an idle one: an alert that looks back over
// minutes must see that a breaker closed.
func (m *Metrics) Upstreams(read func() []UpstreamState) {
	m.upstreams = read
	m.Registry.MustRegister(upstreams(read))
}

// UpstreamStates is what Upstreams was given, read now.
func (m *Metrics) UpstreamStates() []UpstreamState { return m.upstreams() }

type upstreams func() []UpstreamState

var (
	upstreamInFlight    = prometheus.NewDesc("sluice_upstream_in_flight", "Requests in flight at the upstream.", []string{"upstream"}, nil)
	upstreamMax         = prometheus.NewDesc("sluice_upstream_max_in_flight", "max_in_flight of the upstream; 0 for any number.", []string{"upstream"}, nil)
	upstreamWaiting     = prometheus.NewDesc("sluice_upstream_waiting", "Requests that wait for a place at the upstream.", []string{"upstream"}, nil)
	upstreamConnections = prometheus.NewDesc("sluice_upstream_connections", "Connections to the upstream, idle ones among them.", []string{"upstream"}, nil)
	breakerState        = prometheus.NewDesc("sluice_breaker_state", "A target's breaker: 0 closed, 1 half open, 2 open.",
		[]string{"model", "upstream", "target"}, nil)
	credentialRefused = prometheus.NewDesc("sluice_target_credential_refused", "1 if a target refused the gateway's credential and has accepted none since.",
		[]string{"model", "upstream", "target"}, nil)
	targetDrained = prometheus.NewDesc("sluice_target_drained", "1 if an operator has drained a target or its upstream.",
		[]string{"model", "upstream", "target"}, nil)
)

// Describe names the series.
func (upstreams) Describe(to chan<- *prometheus.Desc) {
	to <- upstreamInFlight
	to <- upstreamMax
	to <- upstreamWaiting
	to <- upstreamConnections
	to <- breakerState
	to <- credentialRefused
	to <- targetDrained
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
			gauge(credentialRefused, map[bool]float64{true: 1}[t.CredentialRefused], t.Model, u.Name, t.Name)
			gauge(targetDrained, map[bool]float64{true: 1}[t.Drained], t.Model, u.Name, t.Name)
		}
	}
}
