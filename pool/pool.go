package pool

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"sluice/config"
	"sluice/metrics"
)

// Pool owns the upstreams of a process, across configurations.
type Pool struct {
	dial    Dial
	lookup  Lookup // nil where dial takes names
	metrics *metrics.Metrics
	log     *slog.Logger
	clock   func() time.Duration

	mu      sync.Mutex // one configuration at a time
	current map[string]*Upstream
	drains  map[drainKey]*atomic.Bool // see drain.go
}

// New makes an empty Pool. clock is what the callers of Pick, Enter and Leave read. A nil
// dial is TCP's, to addresses that the system's resolver finds; any other is given names.
func New(m *metrics.Metrics, log *slog.Logger, clock func() time.Duration, dial Dial) *Pool {
	var lookup Lookup
	if dial == nil {
		dial, lookup = new(net.Dialer).DialContext, lookupNetIP
	}
	p := &Pool{dial: dial, lookup: lookup, metrics: m, log: log, clock: clock, drains: map[drainKey]*atomic.Bool{}}
	m.Upstreams(p.gauges)
	return p
}

// Set is one configuration's upstreams and models. It is read-only.
type Set struct {
	Upstreams []*Upstream // by name
	Models    map[string]*Model
	limits    []int           // max_in_flight of each upstream
	ages      []time.Duration // connections.max_age of each
	series    *metrics.Series
}

// Model is a public name and where it is served.
type Model struct {
	Name    string
	Targets []*Target
	// Unset are targets that are never asked: their upstream has no credential, and needs one.
	Unset      []*Target
	MaxRetries int
	// Fallbacks are the models to try after this one, theirs among them, in order.
	Fallbacks []*Model
	// Fallback counts the requests that fell back to this one.
	Fallback interface{ Inc() }
}

// Target is one upstream's name for a model, with everything about a request to it that
// can be made ready beforehand.
type Target struct {
	Upstream *Upstream
	Model    string // public
	Weight   int
	Timeouts config.Timeouts
	// StreamUsage: the upstream may be asked to tell a stream's usage.
	StreamUsage bool
	// QueueTimeout is how long a request may wait for a place at the upstream.
	QueueTimeout time.Duration
	Metrics      *metrics.Target
	// Variable is the one of the environment that should hold the credential, of Unset targets.
	Variable   string
	health     *health
	maxHead    int               // bytes of an answer's head
	rule       rule              // of its breaker
	credential [sha256.Size]byte // a digest of what tells the upstream whose the requests are

	// Member begins the gateway's member in an answer, up to the number of attempts.
	Member []byte

	name       string // the upstream's name for the model
	Name       []byte // the same as a JSON string
	ModelField []byte // the one field to send it in, as a JSON string; nil for the client's own
	BasePath   []byte
	// Head is what follows the request's target: the version and the headers that are the same in
	// each request. Those of the upstream replace the client's; the credential is among them.
	Head     []byte
	replaces []string
	passes   []string // headers_pass of the upstream
	// Query is appended to the client's parameters without those of the same name.
	Query []byte
	// QueryNames are the names in Query, decoded.
	QueryNames []string
}

// TargetName is the upstream's name for the model.
func (t *Target) TargetName() string { return t.name }

// Replaces reports whether t has a header of its own called name. Case makes no difference, nor does an
// underscore for a dash, which many servers make one name of.
func (t *Target) Replaces(name []byte) bool {
	for _, own := range t.replaces {
		if sameHeader(own, name) {
			return true
		}
	}
	return false
}

func sameHeader(a string, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range b {
		if a[i] != b[i] && foldHeader(a[i]) != foldHeader(b[i]) {
			return false
		}
	}
	return true
}

func foldHeader(c byte) byte {
	switch {
	case 'A' <= c && c <= 'Z':
		return c + 'a' - 'A'
	case c == '_':
		return '-'
	}
	return c
}

// Passes reports whether the operator lets the client's header called name through to t, which would
// stay at the gateway otherwise.
func (t *Target) Passes(name []byte) bool {
	for _, passed := range t.passes {
		if strings.EqualFold(passed, string(name)) {
			return true
		}
	}
	return false
}

// header gives t a header of its own.
func (t *Target) header(name, value string) {
	t.replaces = append(t.replaces, name)
	t.Head = AppendHeader(t.Head, fasthttp.AppendNormalizedHeaderKey(nil, name), []byte(value))
}

// AppendHeader appends a header's line. Neither name nor value has a character that could end
// it.
func AppendHeader(dst, name, value []byte) []byte {
	dst = append(append(dst, name...), ": "...)
	return append(append(dst, value...), "\r\n"...)
}

// Build compiles a configuration. Upstreams whose address, proxy and ca are unchanged are those in use,
// with their connections and counts. Nothing takes effect before Adopt.
func (p *Pool) Build(cfg *config.Config) *Set {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := &Set{Models: make(map[string]*Model, len(cfg.Models)), series: p.metrics.Series()}
	byName := map[string]*Upstream{}
	for _, name := range slices.Sorted(maps.Keys(cfg.Upstreams)) {
		u, series := p.current[name], s.series.Upstream(name)
		maxAge := cfg.ConnectionsFor(cfg.Upstreams[name]).MaxAge.Std()
		if u == nil || u.route != routeOf(cfg.Upstreams[name]) {
			u = p.newUpstream(name, cfg.Upstreams[name], maxAge, series)
		}
		byName[name] = u
		s.Upstreams = append(s.Upstreams, u)
		s.ages = append(s.ages, maxAge)
		s.limits = append(s.limits, cfg.Upstreams[name].MaxInFlight)
	}
	for name, m := range cfg.Models {
		model := &Model{Name: name, MaxRetries: cfg.MaxRetriesFor(m)}
		for _, t := range m.Targets {
			c := cfg.Upstreams[t.Upstream]
			target := p.newTarget(name, t, c, byName[t.Upstream])
			target.Timeouts = cfg.TimeoutsFor(m, c)
			target.Metrics = s.series.Target(name, t.Upstream)
			target.maxHead = int(cfg.Limits.UpstreamHead)
			target.rule = rule{failures: cfg.Breaker.Failures, ratio: true, pause: cfg.Breaker.Pause.Std(), longest: longestPause}
			if variable, unset := c.Unset(); unset {
				target.Variable = variable
				model.Unset = append(model.Unset, target)
				continue
			}
			model.Targets = append(model.Targets, target)
		}
		model.Fallback = s.series.Fallbacks(name)
		s.Models[name] = model
	}
	for name := range cfg.Models {
		s.fallBack(cfg, s.Models[name], name)
	}
	return s
}

// mostFallbacks bounds how far a request falls.
const mostFallbacks = 32

// fallBack appends what the model called from falls back to, each model followed by its own
// fallbacks, none twice. The configuration has no circles.
func (s *Set) fallBack(cfg *config.Config, m *Model, from string) {
	for _, name := range cfg.Models[from].Fallbacks {
		if next := s.Models[name]; len(m.Fallbacks) < mostFallbacks && !slices.Contains(m.Fallbacks, next) {
			m.Fallbacks = append(m.Fallbacks, next)
			s.fallBack(cfg, m, name)
		}
	}
}

// Adopt makes s the configuration in use and retires the upstreams that it lacks.
func (p *Pool) Adopt(s *Set) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.series.Adopt()
	used := s.healths(p.clock())
	p.forgetDrains(s)
	old := p.current
	p.current = make(map[string]*Upstream, len(s.Upstreams))
	for i, u := range s.Upstreams {
		p.current[u.Name] = u
		u.forget(used)
		u.queue.SetLimit(int64(s.limits[i]))
		u.maxAge.Store(int64(s.ages[i]))
	}
	for name, u := range old {
		if p.current[name] != u {
			u.retire()
		}
	}
}

// healths are those of the targets in s, whose credentials are in use from now on.
func (s *Set) healths(now time.Duration) map[*health]bool {
	used := map[*health]bool{}
	for _, m := range s.Models {
		for _, t := range m.Targets {
			used[t.health] = true
			t.health.uses(now, t.credential)
		}
	}
	return used
}

// Close retires every upstream.
func (p *Pool) Close() { p.Adopt(p.Build(&config.Config{})) }

func (p *Pool) newTarget(model string, t *config.Target, c *config.Upstream, u *Upstream) *Target {
	name := t.Model
	if name == "" {
		name = model
	}
	target := &Target{
		Upstream: u, Model: model, Weight: t.Weight, name: name, Name: quote(name),
		QueueTimeout: c.QueueTimeout.Std(), StreamUsage: c.StreamUsage, passes: c.HeadersPass,
		health: u.healthOf(healthKey{model, name}, p.drainSwitch(drainKey{u.Name, name})),
	}
	target.Member = fmt.Appendf(nil, `"gateway":{"model":%s,"upstream":%s,"attempts":`, quote(model), quote(u.Name))
	target.BasePath = []byte(strings.TrimSuffix(c.BaseURL.EscapedPath(), "/"))
	if c.ModelField != "" {
		target.ModelField = quote(c.ModelField)
	}
	target.Head = []byte(" HTTP/1.1\r\nHost: " + c.BaseURL.Host + "\r\nAccept-Encoding: identity\r\n")
	for _, h := range slices.Sorted(maps.Keys(c.Headers)) {
		target.header(h, c.Headers[h].Reveal())
	}
	switch {
	case target.Replaces([]byte(c.AuthHeader)):
		// The operator has written the header out.
	case c.APIKey != "" && strings.EqualFold(c.AuthHeader, "Authorization"):
		target.header("Authorization", "Bearer "+c.APIKey.Reveal())
	case c.APIKey != "":
		target.header(c.AuthHeader, c.APIKey.Reveal())
	case c.BaseURL.User != nil:
		target.header("Authorization", basic(c.BaseURL.User))
	}
	query := url.Values{}
	for name, value := range c.Query {
		query.Set(name, value.Reveal())
		target.QueryNames = append(target.QueryNames, name)
	}
	target.Query = []byte(query.Encode())
	// A credential may be in any header, or in the query.
	target.credential = sha256.Sum256(append(append(target.Head[:len(target.Head):len(target.Head)], '?'), target.Query...))
	return target
}

// quote writes s as a JSON string. (fastjson's own way writes some characters as Go does,
// not as JSON does.)
func quote(s string) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		panic("BUG: a string is not JSON: " + err.Error())
	}
	return bytes.TrimRight(b.Bytes(), "\n")
}
